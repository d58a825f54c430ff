"What tutorials and reference pages promise: an own student with TSL's loss is TSL's, and no public name is left out."
import ast, importlib.util, json, re, sys

import pytest

from conftest import ROOT
from mtmt.recipes import make_recipe
from mtmt.records import read_predictions
from mtmt.runs import run

TUTORIALS = sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))

def cells(path, kind='code'):
    "Sources and outputs of the cells of a notebook"
    return [(''.join(c['source']), c.get('outputs', [])) for c in json.loads(path.read_text(encoding='utf-8'))['cells']
        if c['cell_type'] == kind]

@pytest.mark.parametrize('path', TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_is_short_and_shows_results(path):
    words = sum(len(re.sub(r'^```.*?^```', '', source, flags=re.S | re.M).split()) for source, _ in cells(path, 'markdown'))
    assert words < 900, words
    assert any(outputs for _, outputs in cells(path)), 'no stored output'

@pytest.fixture
def own(tmp_path, monkeypatch):
    "The functions of `Add a method`, as a module: a loss is kept with its source, which wants a file"
    code = [source for source, _ in cells(ROOT/'nbs'/'tutorials'/'add_a_method.ipynb') if re.match(r'import |def \w+(objective|student|run)\(', source)]
    assert len(code) == 4
    loss = '''from mtmt.losses import recognition_loss
def tsl_objective(h, scores, batch, step):
    p, q = batch['probabilities'].float(), scores.softmax(-1)
    return dict(loss=recognition_loss(q, p, 'mean').mean())'''
    (tmp_path/'own_method.py').write_text('\n\n'.join([*code, loss]), encoding='utf-8')
    spec = importlib.util.spec_from_file_location('own_method', tmp_path/'own_method.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'own_method', module)
    spec.loader.exec_module(module)
    return module

def test_an_own_student_with_the_loss_of_tsl_is_that_of_tsl(own, small_files, tiny_encoder, tmp_path):
    recipe = make_recipe(benchmark='files', data_dir=str(small_files), target='sw', method='tsl', encoder=tiny_encoder,
        out_dir=str(tmp_path/'runs'), learning_rate=1e-3, max_length=32, epochs=1, student_epochs=2)
    theirs = run(recipe)
    mine = own.own_run(recipe, 'tsl-own', own.tsl_objective)
    other = own.own_run(recipe, 'tsl-js', own.js_objective)
    said = [read_predictions(tmp_path/'runs'/record['run']) for record in (theirs, mine)]
    assert said[0] == said[1] and len({theirs['run'], mine['run'], other['run']}) == 3
    assert theirs['signature'] == mine['signature'] == other['signature']
    weights = [(tmp_path/'runs'/record['run']/'model'/'trained.safetensors').read_bytes() for record in (theirs, mine, other)]
    assert weights[0] == weights[1] != weights[2]

def public_names():
    "Every public name with its module, read from the files"
    for path in sorted((ROOT/'mtmt').glob('[a-z]*.py')):
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
                yield from ((name, path.stem) for name in ast.literal_eval(node.value))

def shown_table(path):
    "The Markdown that a page of the reference shows, as it is stored"
    return '\n'.join(''.join(o['data'].get('text/markdown', '')) for _, outputs in cells(path) for o in outputs if 'data' in o)

def test_every_public_name_is_on_its_page():
    stored = shown_table(ROOT/'nbs'/'reference'/'api.ipynb')
    shown = re.findall(r'^\| \[<code>(\w+)</code>\]\(\.\./(\w+\.ipynb)\) \| <code>(\w+)</code> \| (.+) \|$', stored, re.M)
    assert sorted((name, module) for name, _, module, _ in shown) == sorted(public_names())
    for name, chapter, module, about in shown:
        assert chapter.partition('_')[2] == f'{module}.ipynb' and (ROOT/'nbs'/chapter).is_file(), (name, chapter)

def test_the_page_of_all_names_is_what_its_code_makes():
    space = {}
    code = [source for source, _ in cells(ROOT/'nbs'/'reference'/'api.ipynb')]
    for source in code: exec(source.replace('Markdown(', 'made = Markdown('), space)
    assert space['made'].data == shown_table(ROOT/'nbs'/'reference'/'api.ipynb'), 'run the notebook and commit'
