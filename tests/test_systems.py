"Other systems, ready to run: the scripts' own part on stubs with the real interface, and the whole way from text to score."
import ast, importlib.util, json, os, shlex, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest

from conftest import ROOT
from mtmt.corpus import CORPUS_SCHEMA
from mtmt.data import MtmtError, Schema, tag_names
from mtmt.benchmarks import load_labelled
from mtmt.entities import spans
from mtmt.external import read_system
from mtmt.runs import score_system, system_text
from test_commands import fenced, markdown
from test_llm import endpoint, said       # noqa: F401

SCRIPTS = ROOT/'nbs'/'experiments'/'systems'
TYPES = 'PER=person,LOC=location,ORG=organization,MISC=other'

# The parts of gliner 0.2.29 and gliner2 2.1.0 that the script calls. The folder of a model is a file of what it answers.
COMMON = '''
import json, re, time
from pathlib import Path
from types import SimpleNamespace as Space
def known(folder): return json.loads((Path(folder)/'answers.json').read_text())
def found(known, text):
    if '"sleep"' in json.dumps(known): time.sleep(known['sleep'])
    if known.get('fail') and known['fail'] in text: raise RuntimeError('out of\\nmemory')
    for name, (label, score) in known['names'].items():
        edge = r'(?<!\\S){}(?!\\S)' if known.get('whole') else '{}'
        for m in re.finditer(edge.format(re.escape(name)), text): yield m.start(), m.end(), label, score
'''
STUBS = dict(gliner=('0.2.29', COMMON+'''
class GLiNER:
    @classmethod
    def from_pretrained(cls, model_id, revision=None, cache_dir=None, force_download=False, proxies=None, resume_download=False,
            local_files_only=False, token=None, map_location='cpu', **model_kwargs):
        self = cls()
        self.known = known(model_id)
        self.config = Space(max_len=self.known.get('words', 384))
        class Tokenizer:
            model_max_length = self.known.get('pieces', 10**30)
            __call__ = lambda _, words, is_split_into_words=False: dict(input_ids=list(''.join(words)))
        self.data_processor = Space(transformer_tokenizer=Tokenizer(),
            words_splitter=lambda text: ((m.group(), m.start(), m.end()) for m in re.finditer(r'\\w+(?:[-_]\\w+)*|\\S', text)),
            prepare_inputs=lambda texts, entities: ([[*entities[0], *texts[0]]], [len(entities[0])]))
        return self
    def inference(self, texts, labels, flat_ner=True, threshold=.5, multi_label=False, batch_size=8, **external_inputs):
        return [[dict(start=b, end=e, text=text[b:e], label=label, score=score) for b, e, label, score in found(self.known, text)
            if score > threshold] for text in texts]
'''), gliner2=('2.1.0', COMMON+'''
class AutoExtractor:
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, architecture=None, config=None,
            allow_architecture_override=False, **kwargs):
        assert set(kwargs) <= {'map_location', 'revision'}
        self = cls()
        self.known = known(pretrained_model_name_or_path)
        self.encoder = Space(config=Space(max_position_embeddings=self.known.get('pieces', 512)))
        self.processor = Space(transform_record=lambda text, schema: Space(input_ids=text.split()))
        return self
    def create_schema(self): return Space(entities=lambda entity_types: entity_types)
    def batch_extract_entities(self, texts, entity_types, batch_size=8, threshold=.5, format_results=True,
            include_confidence=False, include_spans=False, max_len=None, overlap_policy=None):
        assert include_confidence and include_spans
        out = []
        for text in texts:
            each, stop = {label: [] for label in entity_types}, []
            if not text.endswith(('.', '!', '?')):
                text, stop = text+'.', [(len(text), len(text)+1, entity_types[0], .8)]
            for b, e, label, score in [*found(self.known, text), *stop]:
                if score > threshold: each[label].append(dict(text=text[b:e], confidence=score, start=b, end=e))
            out.append(dict(entities=each))
        return out
'''))
PACKAGES = {'gliner-x': 'gliner', 'gliner2': 'gliner2'}
NAMES = dict(Kano=['location', .9], Amina=['person', .7], Ali=['person', .55])

@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with the stub packages, a model and a text, and the script as a module"
    for name, (number, code) in STUBS.items():
        (tmp_path/'site'/name).mkdir(parents=True)
        (tmp_path/'site'/name/'__init__.py').write_text(code)
        about = tmp_path/'site'/f'{name}-{number}.dist-info'
        about.mkdir()
        (about/'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n')
    monkeypatch.syspath_prepend(str(tmp_path/'site'))
    monkeypatch.chdir(tmp_path)
    model(tmp_path)
    text(tmp_path, ['Amina in Kano', 'Ali , Ali', 'nobody here'])
    yield tmp_path
    for name in STUBS: sys.modules.pop(name, None)

def model(folder, names=NAMES, **more):
    (folder/'model').mkdir(exist_ok=True)
    (folder/'model'/'answers.json').write_text(json.dumps(dict(names=names) | more))

def text(folder, texts, name='text.jsonl'):
    lines = [json.dumps(dict(text=t, words=t.split(' ')), ensure_ascii=False)+'\n' for t in texts]
    (folder/name).write_text(''.join(lines), encoding='utf-8')

def script(name):
    "A script as a module"
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location(f'systems_{name}', SCRIPTS/f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally: sys.path.remove(str(SCRIPTS))
    return module

def predict(system='gliner-x', *more, types=TYPES, out='out.jsonl'):
    return script('predict').main([system, 'text.jsonl', out, '--model', 'model', '--types', types, '--device', 'cpu', *more])

def test_the_commands_of_the_chapter_are_understood():
    lines = [line for line in fenced(markdown(ROOT/'nbs'/'45_external.ipynb')) if 'systems/' in line]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        at = next(i for i, word in enumerate(words) if word.endswith('.py'))
        module = script(Path(words[at]).stem)
        assert (ROOT/words[at]).is_file() and script('predict').read_types(module.command_parser().parse_args(words[at+1:]).types)

def rows(path): return [json.loads(line) for line in Path(path).read_text(encoding='utf-8').splitlines()]

def test_the_script_needs_nothing_of_mtmt():
    tree = ast.parse((SCRIPTS/'predict.py').read_text())
    used = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    used |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    others = {name.split('.')[0] for name in used}-set(sys.stdlib_module_names)
    assert others == {'gliner', 'gliner2', 'torch', 'huggingface_hub'}

@pytest.mark.parametrize('path', sorted(SCRIPTS.glob('*.py')), ids=lambda p: p.name)
def test_a_script_is_plain_code(path):
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 110
    functions = [n for n in ast.walk(ast.parse('\n'.join(lines))) if isinstance(n, ast.FunctionDef)]
    long = [f.name for f in functions if f.end_lineno-f.lineno > 40]
    assert not long and all(ast.get_docstring(f) for f in functions if f.name not in ('__init__', 'say'))

@pytest.mark.parametrize('system', PACKAGES)
def test_an_answer_is_what_the_kit_reads(place, system, capsys):
    assert predict(system, '--batch', '2') == 0
    read = read_system('out.jsonl', [r['words'] for r in rows('text.jsonl')], Schema(('PER', 'LOC')))
    assert read.tags == [['B-PER', 'O', 'B-LOC'], ['B-PER', 'O', 'B-PER'], ['O', 'O']] and read.scores[0] == [.7, None, .9]
    about = json.loads(Path('out.jsonl.about.json').read_text())
    assert about['versions'][PACKAGES[system]] == STUBS[PACKAGES[system]][0] and {'python', 'torch', 'transformers'} < set(about['versions'])
    assert about['revision'].startswith('files ') and (about['sentences'], about['entities'], about['cut']) == (3, 4, 0)
    assert not list(place.glob('*partial')) and not list(place.glob('*.tmp'))
    assert '3 of 3 sentences' in capsys.readouterr().err
    assert predict(system) == 2 and 'out.jsonl is there already' in capsys.readouterr().err

@pytest.mark.parametrize('types, why', [('', 'no type'), (' , ', 'no type'), ('PER', "'PER' is not TYPE=words"), ('=person', 'TYPE=words'),
    ('PER=', 'TYPE=words'), ('PER=person,LOC=person', "'person' is there twice")])
def test_wrong_types(place, types, why, capsys):
    assert predict(types=types) == 2
    err = capsys.readouterr().err
    assert why in err and err.count('\n') == 1 and not Path('out.jsonl').exists()

@pytest.mark.parametrize('line, why', [('', 'not a line of `mtmt text`'), ('[1]', 'not a line'), ('{"words": [1]}', 'not a line'),
    ('{"entities": []}', 'not a line'), ('{"text": 7}', 'not a line'), ('\x00', 'not a line'), ('{"text": "我在北京"}', 'no spaces and no words')])
def test_a_text_that_is_none(place, line, why, capsys):
    Path('text.jsonl').write_text(json.dumps(dict(text='Amina', words=['Amina']))+'\n'+line+'\n', encoding='utf-8')
    assert predict() == 2
    err = capsys.readouterr().err
    assert f'text.jsonl:2: {why}' in err and err.count('\n') == 1

def test_other_things_that_go_wrong_are_a_line(place, capsys):
    for more, why in (((), 'out.jsonl'), (('--batch', '0'), '--batch'), (('--threshold', '1'), '--threshold')):
        if more: assert predict('gliner-x', *more) == 2 and why in capsys.readouterr().err
    Path('text.jsonl').unlink()
    assert predict() == 2 and capsys.readouterr().err == 'text.jsonl: No such file or directory\n'
    text(place, ['Amina in Kano'])
    (place/'model'/'answers.json').write_text('{')
    assert predict() == 2
    err = capsys.readouterr().err
    assert 'model cannot be loaded: JSONDecodeError' in err and 'Traceback' not in err
    shutil.rmtree(place/'site'/'gliner-0.2.29.dist-info')
    assert predict() == 2
    assert "gliner is not installed in" in (err := capsys.readouterr().err) and "pip install 'gliner==0.2.29'" in err

def test_words_of_a_script_without_spaces_are_given_with_spaces(place, capsys):
    Path('text.jsonl').write_text(json.dumps(dict(text='我在北京', words=['我', '在', '北京']))+'\n', encoding='utf-8')
    model(place, names={'北京': ['location', .9]})
    assert predict() == 0 and rows('out.jsonl') == [dict(text='我 在 北京', entities=[dict(start=4, end=6, label='LOC', score=.9)])]
    assert 'a script without spaces' in capsys.readouterr().err

@pytest.mark.parametrize('system, limit, why', [('gliner-x', dict(words=2), '3 of its words, and it reads 2'),
    ('gliner-x', dict(pieces=40), '42 pieces with the labels, and it reads 40'),
    ('gliner2', dict(pieces=2), '3 pieces with the labels, and its encoder has 2 places')])
def test_a_sentence_that_would_be_cut(place, system, limit, why, capsys):
    text(place, ['Ali', 'Amina in Kano', 'Amina in Kano'])
    model(place, **limit)
    assert predict(system) == 2
    assert f'text.jsonl:2: too long: {why}, and 1 more; --allow-cut' in capsys.readouterr().err and not Path('out.jsonl').exists()
    assert predict(system, '--allow-cut') == 0
    assert '2 of 3 sentences are cut' in capsys.readouterr().err
    assert json.loads(Path('out.jsonl.about.json').read_text())['cut'] == 2

@pytest.mark.parametrize('names, threshold, why', [({}, '.5', 'nothing at all was found in 3 sentences'), (NAMES, '.95', 'try a --threshold under 0.95'),
    ({c: ['person', .05+i/1000] for i, c in enumerate('aein')}, '.01', 'scores are nearly equal, 0.050 to 0.053'),
    ({c: ['person', .5+i/50] for i, c in enumerate('aein')}, '.4', 'scores are nearly equal, 0.500 to 0.560'),
    ({c: ['person', 1.] for c in 'aein'}, '.4', 'scores are nearly equal, 1.000 to 1.000'),
    (dict(Ali=['person', float('nan')]), '-0', 'a score is nan')])
def test_the_answer_of_a_broken_installation_is_refused(place, names, threshold, why, capsys):
    model(place, names=names)
    if 'nan' in why: (place/'site'/'gliner'/'__init__.py').write_text(STUBS['gliner'][1].replace('if score > threshold', ''))
    assert predict('gliner-x', '--threshold', threshold.strip('-')) == 2
    err = capsys.readouterr().err
    assert why in err.splitlines()[-1] and not Path('out.jsonl').exists() and not Path('out.jsonl.about.json').exists()

def test_few_equal_scores_are_no_sign_of_anything(place):
    model(place, names=dict(Kano=['location', .9]))
    assert predict() == 0

def test_a_failure_goes_on_from_there(place, capsys):
    model(place, fail='Ali')
    assert predict('gliner-x', '--batch', '1') == 2
    assert 'failed at sentences 2 to 2: RuntimeError: out of memory; the same command goes on' in capsys.readouterr().err
    assert len(rows('out.jsonl.partial')) == 2
    # another model: what was kept is not mixed with it
    model(place)
    assert predict() == 2
    assert 'out.jsonl.partial was begun with other revision' in capsys.readouterr().err
    model(place, fail='Ali')
    for more, what in ((('--threshold', '.6'), 'threshold'), (('--types', 'PER=person'), 'types')):
        assert predict('gliner-x', *more) == 2 and f'begun with other {what}' in capsys.readouterr().err

def test_a_line_that_was_being_written_is_read_again(place, capsys):
    assert predict(out='whole.jsonl') == 0
    model(place, fail='nobody')
    assert predict('gliner-x', '--batch', '1') == 2
    kept = Path('out.jsonl.partial')
    head, first, second = kept.read_text().splitlines()
    asked = json.loads(head)
    model(place)
    asked['revision'] = json.loads(Path('whole.jsonl.about.json').read_text())['revision']
    kept.write_text(json.dumps(asked, sort_keys=True)+'\n'+first+'\n'+second[:20])
    assert predict() == 0 and '1 of 3 sentences were read before' in capsys.readouterr().err
    assert Path('out.jsonl').read_bytes() == Path('whole.jsonl').read_bytes()

def process(*args, cwd, **more):
    "A real process in an environment with the stubs"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(cwd/'site'), str(ROOT)]), TQDM_DISABLE='1', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    # what runs in the background of a shell has SIGINT ignored
    return subprocess.Popen([sys.executable, *map(str, args)], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **more)

def finished(*args, cwd):
    "What a real process said"
    running = process(*args, cwd=cwd)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    return out+err

@pytest.mark.parametrize('how, status', [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed_and_resumed(place, how, status):
    texts = [f'Amina in Kano {i}' for i in range(30)]
    text(place, texts)
    model(place, sleep=.1)
    args = (SCRIPTS/'predict.py', 'gliner-x', 'text.jsonl', 'out.jsonl', '--model', 'model', '--types', TYPES, '--batch', '1', '--device', 'cpu')
    running, kept, end = process(*args, cwd=place), place/'out.jsonl.partial', time.time()+120
    while time.time() < end and (not kept.exists() or kept.read_bytes().count(b'\n') < 5): time.sleep(.02)
    running.send_signal(how)
    _, err = running.communicate(timeout=60)
    assert running.returncode == status and not (place/'out.jsonl').exists()
    if how == signal.SIGINT: assert 'the same command goes on from here' in err and 'Traceback' not in err
    assert 'sentences were read before' in finished(*args, cwd=place)
    assert [r['text'] for r in rows('out.jsonl')] == texts and all(len(r['entities']) == 2 for r in rows('out.jsonl'))

def test_the_target_labels_are_not_in_the_text(small_files):
    lines = [json.loads(line) for line in system_text(benchmark='files', data_dir=str(small_files), target='sw')]
    path = small_files/'sw.test.conll'
    shuffled = path.read_text().replace('B-PER', 'X').replace('B-LOC', 'B-PER').replace('X', 'B-LOC').replace('\tI-PER', '\tI-LOC')
    words = [line.split('\t')[0] for line in path.read_text().split('\n') if line]
    assert [w for line in lines for w in line['words']] == words and all(set(line) == {'text', 'words'} for line in lines)
    path.write_text(shuffled)
    assert [json.loads(line) for line in system_text(benchmark='files', data_dir=str(small_files), target='sw')] == lines
    path.unlink()
    with pytest.raises(MtmtError, match='no test set'): system_text(benchmark='files', data_dir=str(small_files), target='sw')

def test_the_whole_way(place):
    "mtmt text, the script, mtmt score: real processes, on the embedded corpus"
    said = finished('-m', 'mtmt.cli', 'text', '--target', 'sw', '--out', 'sw.jsonl', cwd=place)
    assert 'corpus sw test: 100 sentences, types PER, LOC, ORG, MISC' in said and len(rows('sw.jsonl')) == 100
    test = load_labelled('corpus', 'sw', 'test', CORPUS_SCHEMA)[0]
    asked = {pair.split('=')[0]: pair.split('=')[1] for pair in TYPES.split(',')}
    names = {' '.join(words[b:e]): [asked[kind], .55+len(words)%10/25] for words, tags in zip(test['tokens'], tag_names(test))
        for b, e, kind in spans(tags)}
    model(place, names=names, whole=True)
    finished(SCRIPTS/'predict.py', 'gliner2', 'sw.jsonl', 'sw.out.jsonl', '--model', 'model', '--types', TYPES, cwd=place)
    scored = finished('-m', 'mtmt.cli', 'score', 'sw.out.jsonl', '--name', 'gliner2', '--target', 'sw', '--out', place/'runs', cwd=place)
    record = json.loads(next(place.glob('runs/*/run.json')).read_text())
    assert record['method'] == 'gliner2' and record['f1'] > .95 and 'tgt:sw' in scored
    assert 'B-' not in (place/'sw.jsonl').read_text()

def llm(server, *more, types='LOC=location,PER=person', out='llm.jsonl', endpoint=None):
    return script('llm').main(['text.jsonl', out, '--model', 'm', '--types', types,
        '--endpoint', endpoint or f'http://127.0.0.1:{server.server_port}/v1', *more])

def test_an_llm(place, endpoint, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-secret-key')
    endpoint.answer = lambda question, headers: said(json.dumps([dict(text=question.split('Sentence: ')[1].split()[0], type='Location'),
        dict(text='Atlantis', type='person')]))
    assert llm(endpoint) == 0
    read = read_system('llm.jsonl', [r['words'] for r in rows('text.jsonl')], Schema(('PER', 'LOC')))
    assert read.tags == [['B-LOC', 'O', 'O'], ['B-LOC', 'O', 'O'], ['B-LOC', 'O']]
    about = json.loads(Path('llm.jsonl.about.json').read_text())
    assert about['model'] == 'm' and '{sentence}' in about['prompt'] and set(about['versions']) == {'python', 'mtmt', 'openai'}
    assert about['not_used'] == {'items that are not in the sentence': 3} and about['endpoint'].startswith('http://127.0.0.1')
    assert 'sk-secret' not in ''.join(p.read_text() for p in place.glob('llm.jsonl*')) and len(endpoint.asked) == 3
    # the answers are there still: nothing is asked twice
    Path('llm.jsonl').unlink()
    assert llm(endpoint) == 0 and len(endpoint.asked) == 3
    capsys.readouterr()
    assert llm(endpoint) == 2 and 'is there already' in capsys.readouterr().err

def test_an_llm_that_finds_nothing_or_is_asked_wrongly(place, endpoint, capsys):  # noqa: F811
    assert llm(endpoint) == 2
    assert 'nothing at all was found in 3 sentences' in capsys.readouterr().err and not Path('llm.jsonl').exists()
    Path('bad.txt').write_text('Find {types}: {0}')
    for more, why in ((dict(types='LOC'), 'TYPE=words'), (dict(endpoint='http://me:sk-1@127.0.0.1/v1'), 'no key in the address'),
            (dict(endpoint='https://h/v1?key=sk-1'), 'no key in the address'), (dict(endpoint='localhost'), 'is no address')):
        assert llm(endpoint, out='b.jsonl', **more) == 2
        err = capsys.readouterr().err
        assert why in err and 'sk-1' not in err
    assert llm(endpoint, '--prompt', 'bad.txt', out='b.jsonl') == 2 and 'a prompt has {types} and {sentence}' in capsys.readouterr().err
    assert llm(endpoint, out='b.jsonl', endpoint='http://127.0.0.1:9/v1') == 2
    assert '0 answers are kept' in capsys.readouterr().err

# A Python with the real package: this one, or the one that MTMT_GLINER_PYTHON or MTMT_GLINER2_PYTHON names.
REAL = '''
import inspect, json, sys
sys.path[:] = [p for p in sys.path if p not in sys.argv[1:]]
try: import gliner{}
except ImportError: sys.exit(3)
{}
def plain(f): return [[p.name, str(p.kind), repr(p.default)] for p in inspect.signature(f).parameters.values()]
print(json.dumps([plain(f) for f in functions]))
'''
FUNCTIONS = {'gliner-x': 'from gliner.model import GLiNER, BaseEncoderGLiNER\n'
        'functions = [GLiNER.from_pretrained, BaseEncoderGLiNER.inference]',
    'gliner2': 'from gliner2 import AutoExtractor, GLiNER2\nfunctions = [AutoExtractor.from_pretrained, GLiNER2.batch_extract_entities]'}

def python_with(package):
    "A Python that has the real package"
    name = f'MTMT_{package.upper()}_PYTHON'
    python = os.environ.get(name, sys.executable)
    if subprocess.run([python, '-c', f'import {package}'], capture_output=True, cwd='/').returncode:
        pytest.skip(f'{package} is not installed; set {name} to a python that has it')
    return python

@pytest.mark.parametrize('system', PACKAGES)
def test_the_stubs_have_the_real_signatures(place, system):
    code = REAL.format('2' if system == 'gliner2' else '', FUNCTIONS[system])
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([python_with(PACKAGES[system]), '-c', code], capture_output=True, text=True, env=env, cwd='/')
    assert done.returncode == 0, done.stderr
    module = importlib.import_module(PACKAGES[system])
    names = dict(gliner=('GLiNER', 'inference'), gliner2=('AutoExtractor', 'batch_extract_entities'))[PACKAGES[system]]
    import inspect
    ours = [getattr(module, names[0]).from_pretrained, getattr(getattr(module, names[0]), names[1])]
    for real, stub in zip(json.loads(done.stdout), ours):
        theirs = {name: (kind, default) for name, kind, default in real}
        mine = [p for p in inspect.signature(stub).parameters.values()]
        assert [p.name for p in mine if p.kind != p.VAR_KEYWORD][:len(mine)-1] == [name for name, *_ in real][:len(mine)-1]
        for p in mine: assert theirs[p.name] == (str(p.kind), repr(p.default)), p

TINY = '''
import sys, torch
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
torch.manual_seed(0)
torch.set_num_threads(1)
out = Path(sys.argv[1])
letters = [chr(c) for c in range(33, 127)]
pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *('##'+c for c in letters)]
tok = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token='[UNK]'))
tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tok.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
tok = PreTrainedTokenizerFast(tokenizer_object=tok, unk_token='[UNK]', pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]',
    mask_token='[MASK]', model_max_length=512)
shape = BertConfig(vocab_size=len(pieces)+20*(sys.argv[2] == 'gliner2'), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=512)
if sys.argv[2] == 'gliner2':
    from gliner2 import ExtractorConfig, GLiNER2
    made = GLiNER2(ExtractorConfig(model_name='tiny', max_width=6), encoder_config=shape, tokenizer=tok)
else:
    from gliner import GLiNER, GLiNERConfig
    tok.save_pretrained(out/'encoder')
    BertModel(shape).save_pretrained(out/'encoder')
    made = GLiNER.from_config(GLiNERConfig(model_name=str(out/'encoder'), hidden_size=32, max_len=60, max_width=6, dropout=0.,
        vocab_size=-1, class_token_index=-1, words_splitter_type='whitespace'), backbone_from_pretrained=False)
made.save_pretrained(str(out/'tame'))
with torch.no_grad():
    for p in made.parameters():
        if p.ndim > 1: p.copy_(torch.randn_like(p)*(.35 if sys.argv[2] == 'gliner2' else .2))
made.save_pretrained(str(out/'wild'))
'''

@pytest.mark.parametrize('system', PACKAGES)
def test_the_real_package_runs_the_script(tmp_path, system):
    "Tiny random models of the real class: their scores are nonsense, what becomes of them is not"
    python = python_with(PACKAGES[system])
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | dict(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
    run = lambda *args: subprocess.run([python, *map(str, args)], cwd=tmp_path, env=env, capture_output=True, text=True)
    done = run('-c', TINY, tmp_path, system)
    assert done.returncode == 0, done.stderr
    (tmp_path/'text.jsonl').write_text('\n'.join(system_text(target='sw')[:40])+'\n', encoding='utf-8')
    args = ['--types', TYPES, '--device', 'cpu']
    refused = run(SCRIPTS/'predict.py', system, 'text.jsonl', 'tame.jsonl', '--model', 'tame', *args)
    assert refused.returncode == 2 and ('nearly equal' in refused.stderr or 'nothing at all' in refused.stderr), refused.stderr
    done = run(SCRIPTS/'predict.py', system, 'text.jsonl', 'wild.jsonl', '--model', 'wild', *args)
    assert done.returncode == 0, done.stderr
    read = read_system(tmp_path/'wild.jsonl', [r['words'] for r in rows(tmp_path/'text.jsonl')], CORPUS_SCHEMA)
    assert sum(n for what, n in read.counts.items()) == json.loads((tmp_path/'wild.jsonl.about.json').read_text())['entities']
    text(tmp_path, ['Ali '*200+'.', 'Nenolakewewe '*45+'.'])
    cut = run(SCRIPTS/'predict.py', system, 'text.jsonl', 'cut.jsonl', '--model', 'wild', *args)
    assert cut.returncode == 2 and 'text.jsonl:1: too long' in cut.stderr and 'and 1 more' in cut.stderr
