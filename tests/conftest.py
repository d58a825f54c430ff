"Fixtures: a tiny encoder made on the spot, small corpora, and the real ones where a folder beside the project holds them."
import os, subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault('TQDM_DISABLE', '1')

def mtmt_here(*args):
    "Carry out an `mtmt` command in this process, which has its imports done; what a process of its own would give"
    from mtmt.cli import main
    out, errors = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(errors): status = main([*map(str, args)])
    return subprocess.CompletedProcess(args, status, out.getvalue(), errors.getvalue())

def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='run the tests marked slow too')

def pytest_collection_modifyitems(config, items):
    if not config.getoption('--slow'):
        for i in items:
            if 'slow' in i.keywords: i.add_marker(pytest.mark.skip(reason='slow; run with --slow'))

PEOPLE, PLACES = ['Amina', 'Kofi', 'Wangari', 'Juma', 'Li', 'Ana'], ['Kano', 'Nairobi', 'Lagos', 'Quito', 'Delhi', 'Oslo']
WORDS = {'en': ['saw', 'in', 'and', 'left', 'for', 'today'], 'sw': ['aliona', 'katika', 'na', 'aliondoka', 'kwa', 'leo'],
    'de': ['sah', 'in', 'und', 'verliess', 'nach', 'heute']}

def sentences(lang, count, shift=0):
    "Words and tags of small sentences: person verb preposition place"
    w = WORDS[lang]
    for i in range(shift, shift+count):
        n = 6-i%3 # of different lengths, so that batches have padding
        yield [PEOPLE[i%6], PEOPLE[(i//6)%6], w[i%2*3], w[1+i%2*3], PLACES[i//3%6], w[5]][:n], ['B-PER', 'I-PER', 'O', 'O', 'B-LOC',
            'O'][:n]

def write(path, rows): path.write_text('\n'.join('\n'.join(f'{w}\t{t}' for w, t in zip(*r))+'\n' for r in rows), encoding='utf-8')

@pytest.fixture(scope='session', autouse=True)
def figures_come_out_again(tmp_path_factory):
    "In the end: the figures of every run that the tests made, again from its stored predictions"
    yield
    from mtmt.compare import recompute
    runs = [f.parent for f in tmp_path_factory.getbasetemp().rglob('run.json')]
    off = {f.name: why for f in runs if (why := recompute(f))}
    assert not off

@pytest.fixture(scope='session')
def tiny_encoder(tmp_path_factory):
    "Folder of a random two-layer encoder whose vocabulary covers the small corpora"
    folder = tmp_path_factory.mktemp('tiny')/'encoder'
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *PEOPLE, *PLACES, *sum(WORDS.values(), []), *'abcdefghijklmnopqrstuvwxyz',
        *('##'+c for c in 'abcdefghijklmnopqrstuvwxyz')]
    tok = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token='[UNK]'))
    tok.normalizer = normalizers.BertNormalizer(lowercase=False)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    PreTrainedTokenizerFast(tokenizer_object=tok, unk_token='[UNK]', pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]',
        mask_token='[MASK]').save_pretrained(folder)
    set_seed(0)
    BertModel(BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64), add_pooling_layer=False).save_pretrained(folder)
    return str(folder)

def make_files(folder):
    "A folder of `<language>.<split>.conll` files: English and German labelled, Swahili the target"
    folder.mkdir()
    for lang, split, n, shift in (('en', 'train', 60, 0), ('en', 'dev', 12, 3), ('de', 'train', 50, 2), ('de', 'dev', 12, 4),
        ('sw', 'train', 40, 5), ('sw', 'dev', 12, 1), ('sw', 'test', 12, 7)):
        write(folder/f'{lang}.{split}.conll', sentences(lang, n, shift))
    return folder

@pytest.fixture
def small_files(tmp_path):
    "Small corpora that a test may change"
    return make_files(tmp_path/'files')

@pytest.fixture(scope='session')
def shared(tmp_path_factory):
    "Small corpora that no test changes, `xx` a copy of English among them, and one folder of runs: teachers are trained once"
    top = tmp_path_factory.mktemp('shared')
    files = make_files(top/'files')
    for split in ('train', 'dev'): (files/f'xx.{split}.conll').write_text((files/f'en.{split}.conll').read_text())
    return files, top/'runs'

@pytest.fixture(scope='session')
def real_data(tmp_path_factory):
    "Public corpora, unpacked; in MTMT_DATA_DIR, or packed in a folder beside the project"
    if os.environ.get('MTMT_DATA_DIR'): return Path(os.environ['MTMT_DATA_DIR'])
    packed = sorted(ROOT.parent.glob('*/data/unpack'))
    if not packed:
        pytest.skip('public corpora are not here; set MTMT_DATA_DIR to a folder of <benchmark>/<language>.<split>.conll to run this')
    out = tmp_path_factory.mktemp('real')
    subprocess.run([packed[0], out, 'ner'], check=True, capture_output=True)
    return out/'ner'
