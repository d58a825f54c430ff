"Published tables are what their stored runs say."
import json, re, shutil
from statistics import mean, stdev

import papermill
import pytest

from conftest import ROOT
from mtmt.records import read_runs

RESULTS, TABLE = ROOT/'nbs'/'howto'/'results.ipynb', ROOT/'nbs'/'experiments'/'methods_table.ipynb'

def text_of(notebook): return '\n'.join(''.join(c['source']) for c in notebook['cells'] if c['cell_type'] == 'markdown')

def tables(title):
    "The Markdown tables of a section of the results: rows of cells, the head first"
    section = text_of(json.loads(RESULTS.read_text(encoding='utf-8'))).split(f'### {title}\n')[1].split('\n#')[0]
    found = re.findall(r'(?:^\|.*\n)+', section, re.M)
    return [[[cell.replace('\xa0', ' ').strip(' *') for cell in line.strip('|').split('|')] for line in table.splitlines() if '---' not in line]
        for table in found]

def shown(notebook):
    "What each cell shows, drawings aside"
    outputs = {c['id']: [o.get('text') or o['data'].get('text/markdown') or o['data'].get('text/plain') for o in c['outputs']
        if 'image/png' not in o.get('data', {})] for c in notebook['cells'] if c['cell_type'] == 'code'}
    return {cell: '\n'.join(''.join(x) for x in texts) for cell, texts in outputs.items()}

def f1_of(file, folder):
    "F1 of each stored run, by arm, target and seed"
    shutil.unpack_archive(ROOT/'data'/'results'/file, folder)
    arm = lambda row: row['method']+', scaled'*('ner_reduction' in row['options'])+', 6 epochs'*('epochs' in row['options'])
    return {(arm(r), r['target'], r['seed']): 100*r['f1'] for r in read_runs(folder).rows}

@pytest.fixture(scope='module')
def controls(tmp_path_factory): return f1_of('controls.tar.xz', tmp_path_factory.mktemp('controls'))

@pytest.mark.parametrize('title, arms', [('Which part pays?', 9), ('The second task alone', 7)])
def test_the_tables_of_controls_are_what_their_runs_say(controls, title, arms):
    head, *rows = tables(title)[0]
    targets = head[2:-1]
    assert len(rows) == arms and len(targets) >= 3
    for name, _, *cells, average in rows:
        of_seeds = [[controls[name.replace('`', ''), target, seed] for seed in (0, 1, 2)] for target in targets]
        expected = [f'{mean(x):.1f} ± {stdev(x):.1f}' if '±' in cell else f'{mean(x):.1f}' for cell, x in zip(cells, of_seeds, strict=True)]
        assert cells == expected, name
        assert average == f'{mean(map(mean, of_seeds)):.1f}', name

def test_the_table_of_longer_students_is_what_its_runs_say(tmp_path):
    f1 = f1_of('longer.tar.xz', tmp_path)
    head, *rows = tables('A student needs more steps than its teacher')[0]
    assert len(rows) == 6
    for target, *cells, above in rows:
        of_arms = [[f1[arm, target, seed] for seed in (0, 1, 2)] for arm in ('direct', 'direct, 6 epochs', 'tsl')]
        assert [c.replace('*', '') for c in cells] == [f'{a:.1f}, {b:.1f}, {c:.1f} ({mean((a, b, c)):.1f})' for a, b, c in of_arms]
        assert above == ', '.join(f'{student-teacher:+.1f}' for teacher, _, student in zip(*of_arms))

@pytest.fixture(scope='module')
def run_again(tmp_path_factory):
    "The methods table, run again from the stored runs"
    folder = tmp_path_factory.mktemp('table')
    papermill.execute_notebook(TABLE, folder/'out.ipynb', dict(out_dir=str(folder/'runs')), cwd=ROOT, progress_bar=False,
        kernel_name='python3')
    return shown(json.loads((folder/'out.ipynb').read_text(encoding='utf-8')))

def test_the_methods_table_shows_what_it_showed(run_again):
    before = shown(json.loads(TABLE.read_text(encoding='utf-8')))
    assert sum(map(bool, before.values())) > 5
    for cell, text in before.items(): assert run_again[cell] == text, cell

@pytest.mark.parametrize('title, comparisons', [('Which part pays?', 9), ('The second task alone', 6)])
def test_the_published_differences_are_those_of_the_methods_table(run_again, title, comparisons):
    number = r' +(-?[\d.]+)'
    computed = {pair: [float(x) for x in numbers] for pair, *numbers in
        re.findall(rf'^\d+ +(\S.* - .*\S){number*3}$', '\n'.join(run_again.values()), re.M)}
    _, *rows = tables(title)[1]
    assert len(rows) == comparisons
    for pair, difference, _, interval in rows:
        # the notebook shows two decimals, so a half of the second may be lost
        assert [float(x) for x in (difference, *interval.split(' to '))] == pytest.approx(computed[pair], abs=.055), pair
