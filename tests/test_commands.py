"Every command that a page shows is one that works: its words are understood, and what it names is there."
import json, os, re, shlex, shutil, subprocess, sys, tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from papermill import inspect_notebook

from conftest import ROOT
from mtmt.batch import batch_jobs, sweep_jobs
from mtmt.cli import command_parser
from mtmt.recipes import given_recipe, make_recipe, read_values
from mtmt.runs import run

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
PAGES = [*NOTEBOOKS, ROOT/'README.md', ROOT/'CONTRIBUTING.md', *sorted((ROOT/'data').glob('*/README.md'))]
DISTILL = 'nbs/experiments/distill.ipynb'
FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```', re.S | re.M)
# What a command begins with, after the folder of the environment
OURS = ('mtmt', 'make', 'papermill', 'torchrun', 'python')

def markdown(path):
    "The text of a page"
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.md': return text
    return '\n\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown')

def without_remark(line):
    "A line up to the remark of a shell; a # within quotes is none"
    return re.sub(r'\s+#(?=\s).*$', '', line).strip()

def fenced(text):
    "Lines of the shell blocks of a page, continued lines joined"
    for language, block in FENCE.findall(text):
        if language not in ('', 'bash', 'sh', 'shell', 'console'): continue
        for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
            yield without_remark(line)

def inline(text):
    "Commands between backticks that have an argument; one that names no argument is a name, not a command"
    for code in re.findall(r'`([^`\n]+)`', FENCE.sub('', text)):
        if len(code.split()) > 2: yield code

def words_of(line):
    "The words of a command of ours, without the environment's folder; nothing for any other line"
    if not re.match(rf'(?:\S*/bin/)?(?:{"|".join(OURS)})\s', line): return []
    words = shlex.split(line)
    # in Python, `make = ...` and the like are no commands
    if len(words) > 1 and words[1] in ('=', '+=', 'is'): return []
    return [words[0].rsplit('/', 1)[-1], *words[1:]]

def commands(kind):
    "Each command of a kind, with its page"
    found = {}
    for path in PAGES:
        text = markdown(path)
        for line in (*fenced(text), *inline(text)):
            words = words_of(line)
            if words and words[0] == kind: found.setdefault((path.relative_to(ROOT).as_posix(), line), words[1:])
    return [pytest.param(*page_and_line, words, id=f'{Path(page_and_line[0]).stem}: {page_and_line[1][:70]}')
        for page_and_line, words in found.items()]

# Words that stand for yours, where a command wants a file that a test cannot have
STANDS_FOR = re.compile(r'\b(FILE|FOLDER|DATA|NEW|PATH)\b')

def parsed(words):
    "What the parser of `mtmt` understands"
    # a variable of the shell is a number or a name
    words = [re.sub(r'\$\w+', '0', w) for w in words if w != '...']
    try: return command_parser().parse_args(words)
    except SystemExit: return None

def check_files(page, paths):
    "The parameter files that are part of the project; another is one that the same page makes, by `mtmt new`"
    there = [path for path in paths if (ROOT/path).is_file()]
    made = [line.split()[-3] for line in fenced(markdown(ROOT/page)) if re.search(r'mtmt new \S+ --target \S+$', line)]
    for path in set(paths)-set(there): assert path.split('/')[0] in {*made, 'FOLDER'}, f'{path}: no such file'
    return there

def checked(page, args):
    "Make the recipes that a command stands for"
    values = read_values(getattr(args, 'p', ()))
    if args.command == 'batch':
        for job in batch_jobs(args.targets, args.methods, args.seeds, args.out, **values): make_recipe(**job)
    elif args.command == 'sweep' and not STANDS_FOR.search(args.file): assert sweep_jobs(ROOT/args.file)
    elif args.command == 'run':
        there = check_files(page, args.f)
        if there or values: given_recipe([ROOT/path for path in there], values)
    elif args.command == 'score': make_recipe(**dict(method='direct', target=args.target, out_dir=args.out) | values)

@pytest.mark.parametrize('page, line, words', commands('mtmt'))
def test_a_command_of_ours_is_understood(page, line, words):
    if words[0] == 'COMMAND' or '--help' in words or 'COMMAND' in words: return
    args = parsed(words)
    assert args, f'{page}: {line}'
    checked(page, args)

@pytest.mark.parametrize('page, line, words', commands('torchrun'))
def test_torchrun_starts_a_command_of_ours(page, line, words):
    if '-m' not in words: pytest.skip('said in passing')
    at = words.index('-m')
    assert find_spec(words[at+1])
    assert words[at+1] == 'mtmt.cli' and set(words[:at:2]) <= set(TORCHRUN), line
    args = parsed(words[at+2:])
    assert args, line
    checked(page, args)

TORCHRUN = ('--nproc_per_node', '--nnodes', '--node_rank', '--rdzv_endpoint', '--rdzv_backend', '--rdzv_id')

@pytest.mark.parametrize('page, line, words', commands('python'))
def test_a_module_or_file_is_there(page, line, words):
    if words[0] == '-m': assert find_spec(words[1]), line
    elif words[0].endswith('.py'): assert (ROOT/words[0]).is_file(), line
    if words[:2] == ['-m', 'mtmt.cli'] and words[2:]: assert parsed(words[2:]), line

@pytest.mark.parametrize('page, line, words', commands('make'))
def test_a_target_of_make_exists(page, line, words):
    targets = set(re.findall(r'^([a-z-]+):', (ROOT/'Makefile').read_text(), re.M))
    named = [w for w in words if '=' not in w and w != 'X']
    assert set(named) <= targets, f'{page}: {line}'

def test_targets_of_make_in_passing_exist():
    targets = set(re.findall(r'^([a-z-]+):', (ROOT/'Makefile').read_text(), re.M))
    for path in PAGES:
        named = set(re.findall(r'`make ([a-z-]+)`', markdown(path)))
        assert named <= targets, f'{path.name}: {named-targets}'

def options_of_papermill(words):
    "Notebook, parameter files and parameters of a papermill command"
    notebook, files, given, rest = None, [], {}, list(words)
    places = []
    while rest:
        word = rest.pop(0)
        if word in ('-p', '-r'):
            name = rest.pop(0)
            given[name] = rest.pop(0)
        elif word == '-f': files.append(rest.pop(0))
        elif word == '-y': given |= yaml.safe_load(rest.pop(0))
        elif word in ('-k', '--cwd'): rest.pop(0)
        elif word.startswith('-'): assert word == '--no-progress-bar', word
        else: places.append(word)
    assert len(places) == 2, f'a notebook to run and one to write: {places}'
    return places[0], files, given

@pytest.mark.parametrize('page, line, words', commands('papermill'))
def test_papermill_runs_a_notebook_that_has_these_parameters(page, line, words):
    notebook, files, given = options_of_papermill(words)
    assert (ROOT/notebook).is_file(), f'{page}: {notebook}'
    known = set(inspect_notebook(str(ROOT/notebook)))
    assert set(given) <= known, f'{page}: {set(given)-known}'
    if notebook == DISTILL:
        there = check_files(page, files)
        options = given.pop('options', {})
        given = read_values([(k, v) for k, v in given.items() if isinstance(v, str)])
        # the file of another system is yours
        given_recipe([ROOT/path for path in there], given | dict(options=options))

def test_extras_exist():
    extras = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['optional-dependencies']
    for path in PAGES:
        named = set(re.findall(r'''pip install ["']?(?:-e )?(?:mtmt|\.)\[([\w,]+)\]''', markdown(path)))
        assert set(','.join(named).split(',')) <= {*extras, ''}, path.name

def test_many_commands_are_found():
    "The tests above look at something"
    assert len(commands('mtmt')) > 40 and len(commands('papermill')) > 10 and len(commands('make')) >= 4
    assert words_of('.venv/bin/mtmt tag RUN x.txt') == ['mtmt', 'tag', 'RUN', 'x.txt'] and not words_of('mtmt = 3')
    assert parsed(['batch', '--targets', 'sw', '--limit', '3']) is None and parsed(['bacth']) is None

# Commands that are carried out as the pages have them, in a copy of the project. `runs/mine` are the runs of the lessons.

DRIVER = '''import json, sys
from mtmt.cli import main
for words in json.load(sys.stdin):
    print('$', *words, flush=True)
    try: status = main(words)
    except SystemExit as e: status = e.code
    print('status', status, flush=True)'''

@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of the project; the encoder's weights are not copied"
    top = tmp_path_factory.mktemp('copy')/'mtmt'
    leave_out = shutil.ignore_patterns('.git', '.venv', 'runs', '_docs', '_proc', 'build', '__pycache__', 'encoder', 'tests')
    shutil.copytree(ROOT, top, symlinks=True, ignore=leave_out)
    (top/'data'/'encoder').symlink_to(ROOT/'data'/'encoder')
    shutil.copytree(ROOT/'data'/'lesson_run', top/'runs'/'mine')
    return top

def carried_out(project, lines):
    "What commands print, and their exit statuses, one process for all"
    env = dict(os.environ, PYTHONPATH=str(project), HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-c', DRIVER], input=json.dumps(lines), cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    parts = re.split(r'^\$ (.*)$', done.stdout, flags=re.M)[1:]
    return {command: (said, int(re.search(r'^status (\d+)$', said, re.M)[1])) for command, said in zip(parts[::2], parts[1::2])}, done.stderr

READS = ('compare', 'slices', 'report', 'recompute', 'verify', 'table')

def test_commands_that_read_runs_are_carried_out_as_they_stand(project):
    "Those of `Many runs`, on finished runs that need no model"
    lines = [words_of(line)[1:] for line in fenced(markdown(ROOT/'nbs'/'howto'/'many_runs.ipynb')) if words_of(line)[:1] == ['mtmt']]
    lines = [words for words in lines if words[0] in READS and words[1] == 'runs/mine']
    assert {'compare', 'slices', 'report', 'recompute', 'verify'} <= {words[0] for words in lines}
    found, wrong = carried_out(project, lines)
    assert [status for _, status in found.values()] == [0]*len(lines), (found, wrong[-2000:])
    assert re.search(r'^\| sw +\| mtmt ', found['compare runs/mine mtmt direct'][0], re.M) and (project/'runs'/'mine'/'report.html').is_file()

@pytest.fixture(scope='module')
def a_small_run(project, tiny_encoder):
    "A run of a tiny model among the others"
    recipe = make_recipe(target='sw', method='tsl', encoder=tiny_encoder, out_dir=str(project/'runs'/'mine'), limit=20, dev_limit=10,
        epochs=1, max_length=32)
    return run(recipe)['run']

@pytest.mark.parametrize('page', ['many_runs', 'use_a_model'])
def test_commands_that_want_a_model_are_carried_out_as_they_stand(project, a_small_run, page):
    "`RUN` is the run's name; nothing else is changed but the folder"
    lines = [words_of(line)[1:] for line in fenced(markdown(ROOT/'nbs'/'howto'/f'{page}.ipynb')) if words_of(line)[:1] == ['mtmt']]
    lines = [[re.sub(r'^runs/\w+/RUN$', f'runs/mine/{a_small_run}', word) for word in words] for words in lines
        if any(re.search(r'/RUN$', word) for word in words)]
    assert lines
    (project/'news.txt').write_text('Amina aliona Kano.\n', encoding='utf-8')
    found, wrong = carried_out(project, lines)
    assert [status for _, status in found.values()] == [0]*len(lines), (found, wrong[-2000:])
    wanted = dict(many_runs=f'runs/mine/{a_small_run}/test.html my_model/model.safetensors', use_a_model='news.jsonl')[page]
    assert not [path for path in wanted.split() if not (project/path).is_file()]
