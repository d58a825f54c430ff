"The reader never guesses, and every word keeps its place."
import re
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import HealthCheck, given, settings, strategies as st
from huggingface_hub import constants

from mtmt.benchmarks import (BENCHMARKS, Benchmark, check_language, fetched, load_labelled, load_unlabelled, source_schema,
    split_file)
from mtmt.data import DataError, Schema, content_hash, dataset, read_conll, read_words, tag_names, unlabelled
from mtmt.data import write_conll
from mtmt.encoders import load_tokenizer
from mtmt.windows import word_pieces, windows

CLEAN = 'EU B-ORG\nwins O\nMadrid B-LOC\n\nPeter B-PER\nBlack I-PER\n'
OK = [['EU', 'wins', 'Madrid'], ['Peter', 'Black']]
TAGS = [['B-ORG', 'O', 'B-LOC'], ['B-PER', 'I-PER']]
SAME_FOLDER = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

def make(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

@pytest.mark.parametrize('name, content', [
    ('spaces', CLEAN),
    ('tabs', CLEAN.replace(' ', '\t')),
    ('crlf', CLEAN.replace('\n', '\r\n')),
    ('blank line of white space', CLEAN.replace('\n\n', '\n \t\n')),
    ('leading blank', '\n'+CLEAN),
    ('byte-order mark', '\ufeff'+CLEAN),
    ('trailing space', CLEAN.replace('\n', ' \n').replace('\n \n', '\n\n')),
    ('four columns', re.sub(r' (?=\S+\n)', ' NN I-NP ', CLEAN)),
    ('docstart', '-DOCSTART- O\n\n'+CLEAN),
    ('docstart without a blank line, as in CoNLL-2002 Dutch', '-DOCSTART- -DOCSTART- O\n'+CLEAN.replace(' ', ' N ')),
    ('docstart before each sentence', '-DOCSTART- O\n'+CLEAN.replace('\n\n', '\n\n-DOCSTART- O\n')),
    ('docstart in the place of the blank line', CLEAN.replace('\n\n', '\n-DOCSTART- O\n')),
    ('docstart with other columns', '-DOCSTART-\n\n'+CLEAN),
    ('two docstarts and nothing between', '-DOCSTART- O\n\n-DOCSTART- O\n'+CLEAN+'\n-DOCSTART- O\n')])
def test_accepts(tmp_path, name, content):
    file = make(tmp_path/'f.conll', content)
    corpus, report = read_conll(file)
    assert corpus['tokens'] == OK and tag_names(corpus) == TAGS and not report.repaired and not report.skipped
    raw, report = read_words(file)
    assert raw['tokens'] == OK and (report.sentences, report.words, report.skipped) == (2, 5, 0)
    assert list(raw['id']) == list(corpus['id']) == ['0', '1']

@pytest.mark.parametrize('content, word', [('Real\u00a0Madrid B-ORG\n', 'Real\u00a0Madrid'), ('foo\u2028bar B-ORG\n', 'foo\u2028bar'),
    ('# B-ORG\n', '#'), ('\u200b B-ORG\n', '\u200b')])
def test_odd_words_are_words(tmp_path, content, word):
    corpus, _ = read_conll(make(tmp_path/'f.conll', content))
    assert corpus['tokens'] == [[word]] and tag_names(corpus) == [['B-ORG']]

# content, the message of `raise`, what `repair` leaves (None: the sentence goes), and what it counts
BAD = [
    ('EU B-ORG\nwins\nMadrid B-LOC\n\na O\n', r':2:1: 1 column where the file has 2', None, None),
    ('EU N N B-ORG\nwins N O\n\na N N O\n', r':2:8: 3 columns where the file has 4', None, None),
    ('in O\nMadrid I-LOC\ncity I-LOC\n\na O\n', r':2:8: I-LOC does not follow', ['O', 'B-LOC', 'I-LOC'], 'orphan I'),
    ('New B-LOC\nYork I-ORG\n\na O\n', r':2:6: I-ORG does not follow', ['B-LOC', 'B-ORG'], 'orphan I'),
    ('EU b-org\n\na O\n', r":1:4: unknown tag 'b-org'", ['B-ORG'], 'unknown tag'),
    ('EU ORG\n\na O\n', r":1:4: unknown tag 'ORG'", None, None),
    ('en:EU\tB-ORG\nen:won\tO\n\na\tO\n', r":1:1: every word of the sentence begins with 'en:'", ['B-ORG', 'O'], 'prefix'),
]
@pytest.mark.parametrize('content, message, tags, kind', BAD)
def test_refuses_repairs_skips(tmp_path, content, message, tags, kind):
    file = make(tmp_path/'f.conll', content)
    with pytest.raises(DataError, match=re.escape(str(file))+message): read_conll(file)
    corpus, report = read_conll(file, problems='repair')
    if tags: assert tag_names(corpus)[0] == tags and report.repaired[kind] == 1 and not report.skipped
    else: assert corpus.num_rows == 1 and report.skipped == 1 and not report.repaired
    skipped, _ = read_conll(file, problems='skip')
    assert skipped['tokens'] == [['a']] and list(skipped['id']) == ['1']
    write_conll(tmp_path/'again.conll', corpus['tokens'], tag_names(corpus))
    assert not read_conll(tmp_path/'again.conll', problems='repair')[1].repaired     # repair is idempotent

IOB1 = 'EU I-ORG\nrejects O\nGerman I-MISC\ncall O\n\nPeter I-PER\nBlackburn I-PER\n\nParis I-LOC\nLyon B-LOC\n\n'
BIOES = 'EU S-ORG\nrejects O\nGerman S-MISC\ncall O\n\nPeter B-PER\nBlackburn E-PER\n\nParis S-LOC\nLyon S-LOC\n\n'
IOB2 = [['B-ORG', 'O', 'B-MISC', 'O'], ['B-PER', 'I-PER'], ['B-LOC', 'B-LOC']]

@pytest.mark.parametrize('content, scheme', [(IOB1*2, 'the tags are IOB1'), (BIOES*2, 'the tags are BIOES'),
    (BIOES.replace('S-', 'U-').replace('E-', 'L-')*2, 'the tags are BIOES')])
def test_another_scheme_is_named_in_one_line_and_repaired_exactly(tmp_path, content, scheme):
    file = make(tmp_path/'f.conll', content)
    for how in ('raise', 'skip'):
        with pytest.raises(DataError, match=scheme) as e: read_conll(file, problems=how)
        assert str(e.value).startswith(f'{file}:1:4: ') and '\n' not in str(e.value)
    corpus, report = read_conll(file, problems='repair')
    assert tag_names(corpus) == IOB2*2 and not report.skipped

@pytest.mark.parametrize('content, message', [
    ('EU ORG\nwon O\nParis LOC\n\n'*3, r':1:4: the tags are types without B- or I-'),
    ('# text = EU won\n1\tEU\t_\tB-ORG\n2\twon\t_\tO\n\n', r':2: the first column numbers the words, as in CoNLL-U'),
    ('A list of news\nEU B-ORG\nwon O\n\na O\n', r":1:11: 4 columns where the file has 2: 'A list of news'$"),
    ('EU B-ORG\rwon O\r', r':1:9: a carriage return that ends no line'),
    ('a O\n\n\ufeffEU B-ORG\n', r":3:1: control character '\\ufeff' in a word; read with problems=\"repair\""),
    ('E\x07U B-ORG\n', r":1:2: control character '\\x07' in a word; read with problems=\"repair\"")])
def test_what_is_odd_about_a_file_is_said_in_one_line(tmp_path, content, message):
    file = make(tmp_path/'f.conll', content)
    with pytest.raises(DataError, match=re.escape(str(file))+message) as e: read_conll(file)
    assert '\n' not in str(e.value)

def test_control_characters_are_taken_out_and_odd_characters_counted(tmp_path):
    file = make(tmp_path/'f.conll', 'E\x07U B-ORG\n\ufeffwon O\n\n\x07 O\n\n\u200f O\nmouth\x9d O\n')
    for corpus, report in (read_conll(file, problems='repair'), read_words(file, 'repair')):
        assert corpus['tokens'] == [['EU', 'won'], ['\u200f', 'mouth\x9d']]
        assert report.repaired == {'control character': 2} and report.skipped == 1
        assert str(report).endswith('kept as they are: 1 broken character, 1 invisible word; skipped 1 sentence')

def test_two_repairs_of_one_tag(tmp_path):
    corpus, report = read_conll(make(tmp_path/'f.conll', 'in O\nKano i-loc\n'), Schema(('LOC',)), problems='repair')
    assert tag_names(corpus) == [['O', 'B-LOC']] and report.repaired == {'unknown tag': 1, 'orphan I': 1}

@pytest.mark.parametrize('name, content', [('f.conll', 'nl:Anne B-PER\nnl:Frank I-PER\n\nAmsterdam B-LOC\n'), ('f.conll', 'nl:Anne\nnl:Frank\n\nAmsterdam\n'),
    ('f.txt', 'nl:Anne nl:Frank\nAmsterdam\n')])
def test_raw_text_gets_the_treatment_of_labelled_text(tmp_path, name, content):
    "A language code before every word: raised, repaired or skipped as in a labelled file, whatever the tags"
    file = make(tmp_path/name, content)
    with pytest.raises(DataError, match=r":1:1: every word of the sentence begins with 'nl:'"): read_words(file)
    repaired, report = read_words(file, 'repair')
    assert repaired['tokens'] == [['Anne', 'Frank'], ['Amsterdam']] and report.repaired == {'prefix': 1} and not report.skipped
    skipped, report = read_words(file, 'skip')
    assert skipped['tokens'] == [['Amsterdam']] and list(skipped['id']) == ['1'] and report.skipped == 1
    with pytest.raises(DataError, match='accepted: raise, repair, skip. Did you mean .skip.'): read_words(file, 'skipp')

@pytest.mark.parametrize('name, content, place, last', [
    ('f.conll', b'a O\nM\xc3nchen B-LOC\n\nb O\n', '2:2', '1'), ('f.txt', b'a\nM\xc3nchen\nb\n', '2:2', '2'),
    ('f.conll', 'ü ü\xa0'.encode()+b'\xff O\n\nb O\n', '1:5', '1'), ('f.txt', 'Yau ę'.encode()+b'\xff\nb\n', '1:6', '1')])
def test_bad_encoding_names_the_byte(tmp_path, name, content, place, last):
    file = make(tmp_path/name, content)
    for read in (read_words,) if file.suffix == '.txt' else (read_words, read_conll):
        with pytest.raises(DataError, match=rf'{name}:{place}: byte \d of the line is not UTF-8'): read(file)
        for how in ('repair', 'skip'):
            corpus, report = read(file, problems=how)
            assert corpus['tokens'][-1] == ['b'] and corpus['id'][-1] == last and report.skipped == 1

@pytest.mark.parametrize('content, message', [('', 'the file is empty'), ('\n \n', 'the file is empty'), ('just\nwords\n', 'no tag column'),
    ('-DOCSTART- O\n', 'no sentence is left'), ('-DOCSTART- O\n\n-DOCSTART- O\n', 'no sentence is left')])
def test_hopeless_files(tmp_path, content, message):
    file = make(tmp_path/'f.conll', content)
    with pytest.raises(DataError, match=message): read_conll(file)
    if message != 'no tag column':
        with pytest.raises(DataError, match=message): read_words(file)
    for read in (read_conll, read_words):
        with pytest.raises(DataError, match='no such file'): read(tmp_path/'g.conll')
        with pytest.raises(DataError, match='it is a folder'): read(tmp_path)

def test_all_problems_are_listed_at_once(tmp_path):
    with pytest.raises(DataError) as e: read_conll(make(tmp_path/'f.conll', 'a O\nb\nc X\nd I-PER\n'))
    assert [l.split(':')[1] for l in str(e.value).splitlines()] == ['2', '3', '4']

SENTENCES = ['Kano B-LOC\nda O\n', 'nl:Anne B-PER\nnl:Frank I-PER\n', 'in O\nLagos I-LOC\n', 'a\n', 'b O\nc X O\n', b'M\xc3n B-LOC\n',
    '-DOCSTART- O\nRuto B-PER\n']

@SAME_FOLDER
@given(chosen=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=8), how=st.sampled_from(['repair', 'skip']))
def test_two_readings_are_joined_by_id(tmp_path, chosen, how):
    "The id of a sentence is its number in the file, however many are left out before it"
    content = b'z B-LOC\n\n'+b'\n'.join(s if isinstance(s, bytes) else s.encode() for s in chosen)
    file = make(tmp_path/'f.conll', content)
    labelled, report = read_conll(file, problems=how)
    raw, raw_report = read_words(file, how)
    assert report.sentences+report.skipped == raw_report.sentences+raw_report.skipped == len(chosen)+1
    words = dict(zip(raw['id'], raw['tokens']))
    for key, tokens in zip(labelled['id'], labelled['tokens']):
        assert words[key] == tokens
        there = chosen[int(key)-1] if key != '0' else 'z B-LOC\n'
        assert all(w in there for w in tokens)

@SAME_FOLDER
@given(raw=st.one_of(st.binary(max_size=80), st.text(alphabet='aB-IOPER\t \n\r\ufeff\u200b', max_size=60).map(str.encode)),
    how=st.sampled_from(['raise', 'repair', 'skip']))
def test_any_bytes_give_a_corpus_or_a_data_error(tmp_path, raw, how):
    for name, read in (('f.conll', read_conll), ('f.conll', read_words), ('f.txt', read_words)):
        try: corpus, report = read(make(tmp_path/name, raw), problems=how)
        except DataError as e:
            assert name in str(e)
            continue
        assert all(w for s in corpus['tokens'] for w in s) and report.sentences == corpus.num_rows == len(set(corpus['id']))

@SAME_FOLDER
@given(words=st.lists(st.lists(st.text(st.characters(blacklist_characters='\ufeff ', blacklist_categories=('Cs', 'Cc')), min_size=1, max_size=8)
    .filter(lambda w: not re.match('[a-z]{2,3}:|-DOCSTART-', w)), min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path, words):
    tags = [['B-LOC', *['I-LOC']*(len(s)-1)] for s in words]
    write_conll(tmp_path/'f.conll', words, tags)
    assert content_hash(read_conll(tmp_path/'f.conll')[0]) == content_hash(dataset(words, tags, Schema(('LOC',))))
    assert read_words(tmp_path/'f.conll')[0]['tokens'] == words

def test_the_content_hash_is_what_it_was(tmp_path):
    "It names data in published signatures; ids do not count"
    corpus, _ = read_conll(make(tmp_path/'f.conll', CLEAN))
    assert content_hash(corpus) == 'b50c17dd6d49ca3fb62057683596b402d8775f1f7eaf4afd85ab80e5756ae1bb'
    assert content_hash(unlabelled(corpus)) == 'eb03f47f8858e99490a6c80d0187fb675042946a2094fc187edcce7934e246c6'
    named = dataset(corpus['tokens'], tag_names(corpus), Schema(('LOC', 'ORG', 'PER')), ids=['x', 'y'])
    assert content_hash(named) == content_hash(corpus)

@pytest.fixture(scope='module')
def embedded(): return load_tokenizer('embedded')

@SAME_FOLDER
@given(tokens=st.lists(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=40), min_size=1, max_size=4),
    room=st.integers(8, 64))
def test_every_word_has_one_place_whatever_the_unicode(embedded, tokens, room):
    cut = windows(tokens, embedded, room, overlap=room//4)
    assert [row for w in cut for row in w['rows']] == list(range(sum(map(len, tokens))))
    for w in cut:
        assert len(w['input_ids']) <= room and len(w['first']) == len(w['rows'])
        if len(w['rows']): assert 0 < min(w['first']) and max(w['first']) < len(w['input_ids'])-1

def test_first_pieces_agree_with_the_tokenizer(embedded):
    words = "Rais William Ruto aliwasili Kigali , Ọjọ́bọ̀ 中国 राष्ट्रपति".split()
    enc = embedded([words], is_split_into_words=True)
    ids = enc.word_ids(0)
    [w] = windows([words], embedded)
    assert w['input_ids'].tolist() == enc['input_ids'][0] and w['first'].tolist() == [ids.index(i) for i in range(len(words))]

@pytest.mark.parametrize('lang', ['sw', 'zh-min-nan', 'sr_Latn', 'be-x-old', 'x.y', 'ქართული'])
def test_language_codes_that_are_file_names(lang): check_language(lang)

@pytest.mark.parametrize('lang', ['', '.', '..', '../../k', 'a/b', 'a\\b', '.sw', 'sw.', 'sw\n', 's w', 'sw\0', '*', None, 7, False])
def test_a_language_cannot_leave_the_folder(tmp_path, lang):
    write_conll(tmp_path/'k.train.conll', [['Kano']], [['B-LOC']])
    (tmp_path/'a'/'b').mkdir(parents=True)
    for ask in (lambda: check_language(lang), lambda: split_file('files', lang, 'train', str(tmp_path/'a'/'b')),
        lambda: fetched('wikiann', lang, 'train'), lambda: load_unlabelled('files', lang, str(tmp_path/'a'/'b'))):
        with pytest.raises(DataError, match='language .* is not'): ask()

def test_raw_text_of_a_benchmark_is_reported(tmp_path):
    make(tmp_path/'nl.train.txt', 'nl:Anne nl:Frank\n')
    make(tmp_path/'sw.train.conll', 'Ruto ?\n')
    with pytest.raises(DataError, match=r"nl\.train\.txt:1:1: every word"): load_unlabelled('files', 'nl', str(tmp_path))
    corpus, report = load_unlabelled('files', 'nl', str(tmp_path), 'repair')
    assert corpus['tokens'] == [['Anne', 'Frank']] and report.repaired == {'prefix': 1}
    assert str(load_unlabelled('files', 'sw', str(tmp_path))[1]) == '1 sentence, 1 word'
    corpus, report = load_unlabelled('corpus', 'sw')
    assert corpus.column_names == ['id', 'tokens'] and report.sentences == corpus.num_rows == 2000

def test_fetched_files_are_kept_by_address(tmp_path, monkeypatch):
    "Another address, or another revision of it, is another file; the same one is not read again"
    features = Features(dict(tokens=List(Value('string')), ner_tags=List(ClassLabel(names=['O', 'B-LOC']))))
    for revision, word in (('main', 'Kano'), ('v2', 'Lagos')):
        (tmp_path/revision).mkdir()
        Dataset.from_dict(dict(tokens=[[word], []], ner_tags=[[1], []]), features).to_parquet(tmp_path/revision/'hau.validation.parquet')
    monkeypatch.setattr(constants, 'HF_HOME', str(tmp_path/'home'))
    kept = {}
    for revision in ('main', 'v2', 'main'):
        address = f'{tmp_path}/{revision}/{{lang}}.{{split}}.parquet'
        monkeypatch.setitem(BENCHMARKS, 'trial', Benchmark(('LOC',), hub={'ha': address}, codes=dict(ha='hau')))
        file = split_file('trial', 'ha', 'dev', '')
        assert kept.setdefault(revision, file) == file
        (tmp_path/revision/'hau.validation.parquet').unlink(missing_ok=True)
    assert kept['main'] != kept['v2'] and all(Path(tmp_path/'home'/'mtmt'/'trial') == f.parent for f in kept.values())
    assert [read_conll(kept[r])[0]['tokens'] for r in ('main', 'v2')] == [[['Kano']], [['Lagos']]]
    assert sorted(kept['main'].parent.iterdir()) == sorted(kept.values())
    with pytest.raises(DataError, match='trial ha test: cannot be read from .*pass data_dir'): fetched('trial', 'ha', 'test')
    with pytest.raises(DataError, match='not on the Hub'): fetched('aqmar', 'ar', 'test')

def test_only_the_embedded_corpus_is_parallel():
    assert [name for name, known in BENCHMARKS.items() if known.parallel] == ['corpus']
    ids = [list(load_labelled('corpus', lang, 'test', Schema(BENCHMARKS['corpus'].types))[0]['id']) for lang in ('en', 'zh', 'ha')]
    assert ids[0] == ids[1] == ids[2] and len(set(ids[0])) == 100

def test_counts_of_the_public_corpora(real_data):
    "Sentences and entities as the releases state them"
    for name, lang, n, entities in (('wikiann', 'nl', 10000, 13725), ('aqmar', 'ar', 254, 558), ('hiner', 'hi', 1000, 2372),
        ('uner', 'zh', 500, 763), ('masakhaner2', 'sw', 1883, 4330)):
        corpus, report = load_labelled(name, lang, 'test', Schema(('PER', 'LOC', 'ORG')), str(real_data))
        begun = sum(t[0] == 'B' for s in tag_names(corpus) for t in s)
        assert corpus.num_rows == n and begun+sum(report.to_o.values()) == entities
    assert source_schema('wikiann', 'aqmar', ['en'], str(real_data)).types == ('PER', 'LOC', 'ORG')

# ---- scripts without spaces

WITHOUT_SPACES = dict(Han=['中国', '北京', '毛泽东', '。'], Kana=['カタカナ', 'ひらがな', 'トヨタ'], Thai=['กรุงเทพ', 'ประเทศไทย'], Lao=['ສະຫວັນ'],
    Khmer=['ភ្នំពេញ', 'កម្ពុជា'], Burmese=['ရန်ကုန်', 'မြန်မာ'])
WITH_SPACES = ['القاهرة', 'ب', 'مصر', 'दिल्ली', 'भारत', 'Kano', 'Москва', '한국', 'አዲስ', '2010年', '.', 'הוא']

@pytest.mark.parametrize('script', WITHOUT_SPACES)
def test_no_lone_space_before_a_word_of_a_script_without_spaces(embedded, script):
    cut = word_pieces(WITHOUT_SPACES[script], embedded)
    for word, ids in cut.items():
        own = embedded([[word]], is_split_into_words=True, add_special_tokens=False)['input_ids'][0]
        pieces = embedded.convert_ids_to_tokens(own)
        # a lone mark of punctuation has no script
        dropped = pieces[0] == '▁' and len(pieces) > 1 and word != '。'
        assert ids == (own[1:] if dropped else own)

def test_the_mend_is_needed(embedded):
    "Else the test above would hold of a tokenizer that never makes a lone space"
    first = lambda word: embedded.convert_ids_to_tokens(embedded([[word]], is_split_into_words=True, add_special_tokens=False)['input_ids'][0])[0]
    assert {script for script, words in WITHOUT_SPACES.items() if any(first(word) == '▁' for word in words)} >= {'Han', 'Kana'}

@pytest.mark.parametrize('word', WITH_SPACES)
def test_other_scripts_are_cut_as_the_tokenizer_does(embedded, word):
    assert word_pieces([word], embedded)[word] == embedded([[word]], is_split_into_words=True, add_special_tokens=False)['input_ids'][0]
