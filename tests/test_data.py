"The reader never guesses, and every word keeps its place."
import re

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mtmt.benchmarks import load_labelled, source_schema
from mtmt.data import DataError, Schema, content_hash, read_conll, read_words, tag_names, windows, write_conll
from mtmt.encoders import load_tokenizer

CLEAN = 'EU B-ORG\nwins O\nMadrid B-LOC\n\nPeter B-PER\nBlack I-PER\n'
OK = [['EU', 'wins', 'Madrid'], ['Peter', 'Black']]
TAGS = [['B-ORG', 'O', 'B-LOC'], ['B-PER', 'I-PER']]

@pytest.mark.parametrize('name, content', [('spaces', CLEAN), ('tabs', CLEAN.replace(' ', '\t')), ('crlf', CLEAN.replace('\n', '\r\n')),
    ('blank line of white space', CLEAN.replace('\n\n', '\n \t\n')), ('leading blank', '\n'+CLEAN), ('byte-order mark', '\ufeff'+CLEAN),
    ('trailing space', CLEAN.replace('\n', ' \n').replace('\n \n', '\n\n')), ('four columns', re.sub(r' (?=\S+\n)', ' NN I-NP ', CLEAN)),
    ('docstart', '-DOCSTART- O\n\n'+CLEAN)])
def test_accepts(tmp_path, name, content):
    (tmp_path/'f.conll').write_bytes(content.encode()); corpus, report = read_conll(tmp_path/'f.conll')
    assert corpus['tokens'] == OK and tag_names(corpus) == TAGS and not report.repaired and not report.skipped

@pytest.mark.parametrize('content, word', [('Real\u00a0Madrid B-ORG\n', 'Real\u00a0Madrid'), ('foo\u2028bar B-ORG\n', 'foo\u2028bar'),
    ('# B-ORG\n', '#'), ('\u200b B-ORG\n', '\u200b')])
def test_odd_words_are_words(tmp_path, content, word):
    (tmp_path/'f.conll').write_bytes(content.encode()); corpus, _ = read_conll(tmp_path/'f.conll')
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
    f = tmp_path/'f.conll'; f.write_text(content)
    with pytest.raises(DataError, match=re.escape(str(f))+message): read_conll(f)
    corpus, report = read_conll(f, problems='repair')
    if tags: assert tag_names(corpus)[0] == tags and report.repaired[kind] == 1 and not report.skipped
    else: assert corpus.num_rows == 1 and report.skipped == 1 and not report.repaired
    assert read_conll(f, problems='skip')[0]['tokens'] == [['a']]
    write_conll(tmp_path/'again.conll', corpus['tokens'], tag_names(corpus))
    assert not read_conll(tmp_path/'again.conll', problems='repair')[1].repaired     # repair is idempotent

def test_bad_encoding_names_the_byte(tmp_path):
    (tmp_path/'f.conll').write_bytes(b'a O\nM\xc3nchen B-LOC\n')
    with pytest.raises(DataError, match=r'f.conll:2:2: byte 2 of the line is not UTF-8'): read_conll(tmp_path/'f.conll')

@pytest.mark.parametrize('content, message', [('', 'the file is empty'), ('\n \n', 'the file is empty'),
    ('just\nwords\n', 'no tag column')])
def test_hopeless_files(tmp_path, content, message):
    (tmp_path/'f.conll').write_text(content)
    with pytest.raises(DataError, match=message): read_conll(tmp_path/'f.conll')
    with pytest.raises(DataError, match='no such file'): read_conll(tmp_path/'g.conll')

def test_all_problems_are_listed_at_once(tmp_path):
    (tmp_path/'f.conll').write_text('a O\nb\nc X\nd I-PER\n')
    with pytest.raises(DataError) as e: read_conll(tmp_path/'f.conll')
    assert [l.split(':')[1] for l in str(e.value).splitlines()] == ['2', '3', '4']

@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.one_of(st.binary(max_size=80), st.text(alphabet='aB-IOPER\t \n\r\ufeff\u200b', max_size=60).map(str.encode)),
    how=st.sampled_from(['raise', 'repair', 'skip']))
def test_any_bytes_give_a_corpus_or_a_data_error(tmp_path, raw, how):
    (tmp_path/'f.conll').write_bytes(raw)
    for read in (lambda: read_conll(tmp_path/'f.conll', problems=how)[0], lambda: read_words(tmp_path/'f.conll')):
        try: corpus = read()
        except DataError as e: assert 'f.conll' in str(e); continue
        assert all(w for s in corpus['tokens'] for w in s)

@settings(max_examples=60, deadline=None)
@given(tokens=st.lists(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=40), min_size=1, max_size=4),
    room=st.integers(8, 64))
def test_every_word_has_one_place_whatever_the_unicode(tokens, room):
    tokenizer = load_tokenizer('embedded'); w = windows(tokens, tokenizer, room, overlap=room//4)
    assert [r for x in w for r in x['rows']] == list(range(sum(map(len, tokens))))
    assert all(len(x['input_ids']) <= room and len(x['first']) == len(x['rows']) and 0 < min(x['first'])
        and max(x['first']) < len(x['input_ids'])-1 for x in w if x['rows'])

def test_first_pieces_agree_with_the_tokenizer():
    tokenizer = load_tokenizer('embedded'); words = "Rais William Ruto aliwasili Kigali , Ọjọ́bọ̀ 中国 राष्ट्रपति".split()
    enc = tokenizer([words], is_split_into_words=True); ids = enc.word_ids(0); [w] = windows([words], tokenizer)
    assert w['input_ids'] == enc['input_ids'][0] and w['first'] == [ids.index(i) for i in range(len(words))]

def test_counts_of_the_public_corpora(real_data):
    "Sentences and entities as the releases state them"
    for name, lang, n, entities in (('wikiann', 'nl', 10000, 13725), ('aqmar', 'ar', 254, 558), ('hiner', 'hi', 1000, 2372),
        ('uner', 'zh', 500, 763), ('masakhaner2', 'sw', 1883, 4330)):
        corpus, report = load_labelled(name, lang, 'test', Schema(('PER', 'LOC', 'ORG')), str(real_data))
        assert corpus.num_rows == n and sum(t[0] == 'B' for s in tag_names(corpus) for t in s)+sum(report.to_o.values()) == entities
    assert source_schema('wikiann', 'aqmar', ['en'], str(real_data)).types == ('PER', 'LOC', 'ORG')
