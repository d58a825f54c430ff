"The notebooks are the source: exported in sync, clean, small, in plain code and plain English."
import ast, importlib.util, io, json, re, shutil, subprocess, sys, tokenize
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from test_house import CHAPTERS, definitions, semicolons, source

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
MODULES = sorted((ROOT/'mtmt').glob('[a-z]*.py'))
EXPERIMENTS = [p for p in NOTEBOOKS if p.parent.name in ('experiments', 'tutorials', 'encoders')]
# Words that this project does not use, and what it says instead.
NOT_OURS = {'parted': 'separated', 'likeness': 'similarity', 'who is killed': 'killed process',
    'what they say of it': 'predictions'}

def read(path): return json.loads(path.read_text(encoding='utf-8'))

def exported(cell): return cell['cell_type'] == 'code' and re.match(r'#\|\s*exporti?\b', source(cell))

def code_of(path):
    "Source of each code cell but the parameters', whose lines are options with their help"
    cells = [source(c) for c in read(path)['cells'] if c['cell_type'] == 'code']
    return [s for s in cells if not s.startswith('# Parameters')]

def test_export_and_clean_change_nothing(tmp_path):
    for name in ('settings.ini', 'README.md', 'pyproject.toml', '_quarto.yml'):
        shutil.copy(ROOT/name, tmp_path)
    for name in ('nbs', 'mtmt'):
        leave_out = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        shutil.copytree(ROOT/name, tmp_path/name, symlinks=True, ignore=leave_out)
    for tool in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([Path(sys.executable).parent/tool], cwd=tmp_path, check=True, capture_output=True)
    files = [*NOTEBOOKS, *(p for folder in ('nbs', 'mtmt') for p in (ROOT/folder).rglob('*.py'))]
    names = [p.relative_to(ROOT) for p in files]
    changed = [str(n) for n in names if (ROOT/n).read_bytes() != (tmp_path/n).read_bytes()]
    assert not changed, f'run `make export` and commit: {changed}'

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_small_and_whole(path):
    notebook, text = read(path), path.read_text(encoding='utf-8')
    assert notebook['metadata']['kernelspec']['name'] == 'python3'
    assert path.stat().st_size < 500_000
    assert not re.search(r'(/work/|/tmp/|/root/|/home/)\w', text), 'a path of some machine'
    assert not [o for c in notebook['cells'] for o in c.get('outputs', []) if o['output_type'] == 'error']
    shown = [o.get('data', {}) for c in notebook['cells'] for o in c.get('outputs', [])]
    # JupyterLab shows no SVG of a notebook that is not trusted yet
    assert all('image/png' in data for data in shown if 'image/svg+xml' in data)
    beginning = re.match(r'# .+\n\n> .+', source(notebook['cells'][0]))
    assert beginning, 'a chapter begins with a title and one line that says what it is for'
    wide = [line for code in code_of(path) for line in code.split('\n') if len(line) > 140]
    assert not wide, f'lines of over 140 characters: {wide}'

@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_is_plain_code(path):
    wide = [line for code in code_of(path) for line in code.split('\n') if len(line) > 110]
    assert not wide, f'lines of over 110 columns: {wide}'
    assert not [code for code in code_of(path) if semicolons(code)], 'one statement follows another on a line'

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_public_names_have_docstrings(path):
    for code in (source(c) for c in read(path)['cells'] if exported(c)):
        tree = ast.parse(code)
        public = [n for n in tree.body if getattr(n, 'name', None) in definitions(tree)]
        without = [n.name for n in public if not ast.get_docstring(n)]
        assert not without, f'no docstring: {without}'

def said_in(module):
    "Docstrings and comments of a module"
    code = module.read_text(encoding='utf-8')
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [ast.get_docstring(n) or '' for n in ast.walk(ast.parse(code)) if isinstance(n, kinds)]
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return '\n'.join(docstrings+[t.string for t in tokens if t.type == tokenize.COMMENT])

def prose(path):
    "What a person reads in a notebook, a module or a page"
    if path.suffix == '.py': return said_in(path)
    if path.suffix == '.md': return path.read_text(encoding='utf-8')
    return '\n'.join(source(c) for c in read(path)['cells'] if c['cell_type'] == 'markdown')

@pytest.mark.parametrize('path', [*NOTEBOOKS, *MODULES, ROOT/'README.md'], ids=lambda p: p.name)
def test_prose_uses_the_words_of_the_field(path):
    text = re.sub(r'\s+', ' ', prose(path).lower())
    found = [word for word in NOT_OURS if re.search(rf'\b{word}\b', text)]
    assert not found, ', '.join(f'{word!r}: say {NOT_OURS[word]!r}' for word in found)

def test_site_navigation_points_at_pages():
    site = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    pages = [p for s in site for p in ([s] if isinstance(s, str) else s['contents'])]
    assert sorted(pages) == sorted(str(p.relative_to(ROOT/'nbs')) for p in NOTEBOOKS)
    assert (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def test_readme_is_the_index():
    spec = importlib.util.spec_from_file_location('run_notebooks', ROOT/'.ci'/'run_notebooks.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert text == tool.readme(), 'run `make notebooks` and commit'
    assert not re.search(r'@@\w+@@', text)
    missing = [p for p in re.findall(r'\]\((?!http)([^)#]+)\)', text) if not (ROOT/p).exists()]
    assert not missing

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_the_first_cell_is_title_and_subtitle_alone(path):
    "The builder of the site makes a header of it, and drops what else stands there"
    first = json.loads(path.read_text())['cells'][0]
    lines = [line for line in ''.join(first['source']).splitlines() if line]
    assert first['cell_type'] == 'markdown' and [line[:2] for line in lines] == ['# ', '> '], lines
