"The notebooks are the source: exported in sync, clean, small, and every public name has a lesson."
import ast, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest

from conftest import ROOT

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def exported(cell): return cell['cell_type'] == 'code' and re.match(r'#\|\s*exporti?\b', source(cell))

def test_export_and_clean_change_nothing(tmp_path):
    for f in ('settings.ini', 'README.md', 'pyproject.toml', '_quarto.yml'): shutil.copy(ROOT/f, tmp_path)
    for d in ('nbs', 'mtmt'):
        shutil.copytree(ROOT/d, tmp_path/d, symlinks=True, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for tool in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([Path(sys.executable).parent/tool], cwd=tmp_path, check=True, capture_output=True)
    changed = [str(p.relative_to(ROOT)) for d in ('nbs', 'mtmt')
        for p in (ROOT/d).rglob('*') if p.is_file() and p.suffix in ('.py', '.ipynb') and '.ipynb_checkpoints' not in p.parts
        and p.read_bytes() != (tmp_path/p.relative_to(ROOT)).read_bytes()]
    assert not changed, f'run `make export` and commit: {changed}'

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_house_rules(path):
    nb = json.loads(path.read_text(encoding='utf-8')); text = path.read_text(encoding='utf-8')
    assert nb['metadata']['kernelspec']['name'] == 'python3' and path.stat().st_size < 500_000
    assert not re.search(r'(/work/|/tmp/|/root/|/home/)\w', text), 'a path of some machine'
    assert not [o for c in nb['cells'] for o in c.get('outputs', []) if o['output_type'] == 'error']
    first = source(nb['cells'][0])
    assert re.match(r'# .+\n\n> .+', first), 'a chapter begins with a title and one line that says what it is for'
    long = [(i, n) for i, c in enumerate(nb['cells']) if exported(c) and (n := sum(bool(l.strip()) for l in source(c).split('\n'))) > 60]
    assert not long, f'exported cells of over 60 lines: {long}'
    code = [source(c) for c in nb['cells'] if c['cell_type'] == 'code' and not source(c).startswith('# Parameters')]
    assert not (wide := [l for s in code for l in s.split('\n') if len(l) > 140]), f'lines of over 140 characters: {wide}'

@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if any(exported(c) for c in cells(p))], ids=lambda p: p.stem)
def test_public_names_are_documented_and_shown(path):
    "Each public function or class has a docstring and is used by a cell that is not exported, or by what such a cell uses"
    own, lessons, code = {}, '', ''
    for c in cells(path):
        if c['cell_type'] != 'code': continue
        if exported(c):
            code += source(c)+'\n'
            for n in ast.parse(source(c)).body:
                if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_'): own[n.name] = n
        else: lessons += source(c)+'\n'
    assert not [n for n, d in own.items() if not ast.get_docstring(d)]
    unused = [n for n in own if not re.search(rf'\b{n}\b', lessons) and len(re.findall(rf'\b{n}\b', code)) < 2]
    assert not unused, f'no lesson uses {unused}'

def test_modules_import_only_from_above():
    order = ['data', 'corpus', 'benchmarks', 'encoders', 'losses', 'eval', 'training', 'teachers', 'pool', 'prototypes', 'selection',
        'student', 'external', 'runs', 'compare', 'slices', 'conflicts', 'widgets', 'report', 'batch']
    for f in sorted((ROOT/'mtmt').glob('[a-z]*.py')):
        used = set(re.findall(r'^from \.(\w+) import', f.read_text(), re.M))
        assert not [u for u in used if order.index(u) >= order.index(f.stem)], f.name
        assert not re.search(r'^(from|import) (nbdev|fastcore)', f.read_text(), re.M), f.name

def test_site_navigation_points_at_pages():
    import yaml; site = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    pages = [p for s in site for p in ([s] if isinstance(s, str) else s['contents'])]
    assert sorted(pages) == sorted(str(p.relative_to(ROOT/'nbs'))
        for p in NOTEBOOKS) and (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def test_readme_is_the_index():
    import importlib.util
    spec = importlib.util.spec_from_file_location('run_notebooks', ROOT/'.ci'/'run_notebooks.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = (ROOT/'README.md').read_text(encoding='utf-8'); assert text == tool.readme(), 'run `make notebooks` and commit'
    assert not re.search(r'@@\w+@@', text) and all((ROOT/p).exists() for p in re.findall(r'\]\((?!http)([^)#]+)\)', text))
