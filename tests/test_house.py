"The rules of the house, held by tests: small cells, short lines, a lesson for every public name, imports that go down the plan."
import ast, io, json, re, subprocess, sys, tokenize

import pytest

from conftest import ROOT

# Modules in the order of the plan: each imports only from those before it.
PLAN = ('data text windows languages corpus benchmarks packing encoders vocabulary losses entities eval training same_class teachers pool prototypes selection student external translation confidence methods recipes '
    'workshop records runs compare export slices runtimes charts tagger conflicts widgets report engines batch health projects commands cli').split()
# What a module may use beside that: a record is a format, and reads no models.
ONLY = dict(records={'data', 'entities'})
# Two definitions that are one idea, in one cell.
PAIRS = set()
# Symbols that the maths defines stay symbols in these modules.
MATHS = {'losses', 'same_class', 'pool', 'prototypes', 'selection', 'student'}
SYMBOLS = set('hpqrsz')
CHAPTERS = [p for p in sorted((ROOT/'nbs').glob('*.ipynb')) if p.stem != 'index']

def source(cell): return ''.join(cell['source'])

def code_cells(path):
    "Source of each code cell, and whether it is exported"
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] == 'code':
            yield source(cell), bool(re.match(r'#\|\s*exporti?\b', source(cell)))

def semicolons(code):
    "Lines on which one statement follows another"
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return sorted({t.start[0] for t in tokens if t.type == tokenize.OP and t.string == ';'})

def definitions(tree):
    "Public functions and classes of a cell"
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith('_')]

def public(tree):
    "Every public name of a cell, constants too"
    assigned = [t.id for n in tree.body if isinstance(n, (ast.Assign, ast.AnnAssign))
        for t in (n.targets if isinstance(n, ast.Assign) else [n.target]) if isinstance(t, ast.Name)]
    return definitions(tree)+[n for n in assigned if not n.startswith('_')]

def nested_comprehensions(function):
    "Comprehensions of a function that stand within another one"
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    outer = [n for n in ast.walk(function) if isinstance(n, kinds)]
    return sum(isinstance(inner, kinds) for o in outer for inner in ast.walk(o) if inner is not o)

def short_names(tree):
    "One-letter parameters and variables; those of comprehensions and lambdas live for a line and do not count"
    out = []
    for n in ast.walk(tree):
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)):
            out += [a.arg for a in (*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs) if len(a.arg) == 1]
    inside = {id(x) for n in ast.walk(tree) if isinstance(n, (ast.comprehension, ast.Lambda)) for x in ast.walk(n)}
    return out+[n.id for n in ast.walk(tree)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and len(n.id) == 1 and n.id != '_' and id(n) not in inside]

def mentioned(code):
    "Names and attributes that a cell uses"
    tree = ast.parse(re.sub(r'^\s*[%!].*$', '', code, flags=re.M))
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}

def without_lesson(path):
    "Public names that no later lesson cell of the chapter uses"
    waiting, names = {}, []
    for code, exported in code_cells(path):
        if exported:
            names += public(ast.parse(code))
            waiting |= dict.fromkeys(public(ast.parse(code)))
        else:
            for n in mentioned(code): waiting.pop(n, None)
    return list(waiting), names

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_cells_are_small_and_plain(path):
    module = path.stem.split('_', 1)[1]
    bad = []
    for code, exported in code_cells(path):
        if not exported: continue
        tree, first = ast.parse(code), next((l for l in code.split('\n')[1:] if l.strip()), '')[:50]
        lines = [l for l in code.split('\n') if l.strip() and not l.startswith('#|')]
        wide = [l for l in lines if len(l) > 110]
        if len(lines) > 60: bad.append(f'{first}: {len(lines)} lines')
        if semicolons(code): bad.append(f'{first}: `;` in lines {semicolons(code)}')
        if wide: bad.append(f'{first}: {len(wide)} lines of over 110 columns')
        names = definitions(tree)
        if len(names) > 1 and frozenset(names) not in PAIRS: bad.append(f'{first}: {len(names)} public definitions: {names}')
        for n in ast.walk(tree):
            if isinstance(n, ast.FunctionDef) and nested_comprehensions(n) > 1:
                bad.append(f'{n.name}: {nested_comprehensions(n)} nested comprehensions')
        allowed = set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ') if module in MATHS else SYMBOLS
        if short := [n for n in short_names(tree) if n not in allowed]: bad.append(f'{first}: one-letter names {short}')
    assert not bad, '\n'.join(bad)

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_every_public_name_has_a_later_lesson(path):
    waiting, _ = without_lesson(path)
    assert not waiting, f'no later lesson uses {waiting}'

def test_modules_import_down_the_plan():
    for f in sorted((ROOT/'mtmt').glob('[a-z]*.py')):
        used = set(re.findall(r'^\s*from \.(\w+) import', f.read_text(encoding='utf-8'), re.M))
        above = ONLY.get(f.stem, set(PLAN[:PLAN.index(f.stem)]))
        assert used <= above, f'{f.name} imports {used-above}'
        assert not re.search(r'^(from|import) (nbdev|fastcore)', f.read_text(encoding='utf-8'), re.M), f.name

def test_importing_changes_no_global_state():
    "No renderer, no logging set-up, no seed, no number of threads"
    code = '''
import importlib, logging, random, sys
import altair, datasets, numpy, torch, transformers
import sklearn.linear_model         # draws a number while it is imported
def state():
    return (altair.renderers.active, logging.getLogger().level, len(logging.getLogger().handlers), random.getstate(),
        numpy.random.get_state()[1].tolist(), torch.random.initial_seed(), torch.get_num_threads(), torch.get_default_dtype())
before = state()
for name in sys.argv[1:]: importlib.import_module('mtmt.'+name)
assert state() == before, [a for a, b in zip(state(), before) if a != b]
'''
    done = subprocess.run([sys.executable, '-c', code, *PLAN], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]

def test_a_method_is_data():
    "No branch on a method's name anywhere"
    for f in sorted((ROOT/'mtmt').glob('[a-z]*.py')):
        for n in ast.walk(ast.parse(f.read_text(encoding='utf-8'))):
            if isinstance(n, ast.Compare):
                sides = [ast.unparse(x) for x in (n.left, *n.comparators)]
                assert not (any(s.split('.')[-1] == 'method' for s in sides) and any(s.startswith("'") for s in sides)), f'{f.name}: {sides}'

def figures():
    "What the rules measure, for all chapters together"
    sizes, semi, lines, short, named, missing = [], 0, 0, 0, 0, 0
    for path in CHAPTERS:
        for code, exported in code_cells(path):
            if not exported: continue
            body = [l for l in code.split('\n') if l.strip() and not l.startswith('#|')]
            sizes.append(len(body))
            lines += len(body)
            semi += sum(t.type == tokenize.OP and t.string == ';' for t in tokenize.generate_tokens(io.StringIO(code).readline))
            short += len(short_names(ast.parse(code)))
        waiting, names = without_lesson(path)
        missing, named = missing+len(waiting), named+len(names)
    sizes.sort()
    return dict(cells=len(sizes), median=sizes[len(sizes)//2], ninetieth=sizes[9*len(sizes)//10], largest=sizes[-1],
        semicolons_a_hundred_lines=round(100*semi/lines, 1), one_letter_names=short, with_a_later_lesson=f'{100*(1-missing/named):.0f} %')

if __name__ == '__main__': print(figures())

def test_help_needs_no_torch():
    "Help, and a command that does not exist, answer at once: nothing heavy is loaded before the words are understood"
    code = ('import contextlib, sys\nfrom mtmt.cli import main\n'
        'for words in ([], ["--help"], ["batch", "--help"], ["bacth"]):\n    with contextlib.suppress(SystemExit): main(words)\n'
        'heavy = {"torch", "transformers", "datasets", "pandas", "numpy"} & set(sys.modules)\nassert not heavy, heavy')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'mtmt-released' in done.stdout and "invalid choice: 'bacth'" in done.stderr
