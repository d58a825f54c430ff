"Predictions of other systems are read strictly: what cannot be right is refused by file and line."
import json

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mtmt.data import DataError, Schema
from mtmt.external import as_annotations, place_spans, read_system, word_places
from collections import Counter

WORDS = ['Rais', 'William', 'Ruto', 'aliwasili', 'Kigali', '.']
TEXT = 'Rais William Ruto aliwasili Kigali.'
PER, LOC = dict(start=5, end=17, label='PER'), dict(start=28, end=34, label='LOC')
SCHEMA = Schema(('PER', 'LOC'))
TAGS = ['O', 'B-PER', 'I-PER', 'O', 'B-LOC', 'O']
SAME_FOLDER = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

def line(*entities, **more): return json.dumps(dict(text=TEXT, entities=entities) | more)+'\n'

def read(folder, content, sentences=2, name='f.jsonl'):
    "Read a file of the sentence, twice"
    (folder/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_system(folder/name, [WORDS]*sentences, SCHEMA)

GOOD = line(PER, LOC)
@pytest.mark.parametrize('bad, why', [
    (GOOD.replace('17,', '17, "score": NaN,'), 'a score is a number from 0 to 1, not nan'),
    (line(dict(PER, score=float('inf'))), 'a score is a number from 0 to 1, not inf'),
    (line(dict(PER, score=-float('inf'))), 'a score is a number from 0 to 1, not -inf'),
    (line(dict(PER, score='0.9')), "a score is a number from 0 to 1, not '0.9'"),
    (line(dict(PER, score=True)), 'a score is a number from 0 to 1, not True'),
    (line(dict(PER, score=7)), 'a score is a number from 0 to 1, not 7'),
    (line(dict(PER, score=-.1)), 'a score is a number from 0 to 1, not -0.1'),
    (GOOD.replace('5', '1e999', 1), 'start and end are whole numbers, not inf'),
    (GOOD.replace('17', 'NaN', 1), 'start and end are whole numbers, not nan'),
    (line(dict(PER, start=5.5)), 'start and end are whole numbers, not 5.5'),
    (line(dict(PER, start=None)), 'start and end are whole numbers, not None'),
    (line(dict(start=5, label='PER')), 'start and end are whole numbers, not None'),
    (line(dict(PER, label=None)), 'a label is text, not None'),
    (line(PER, 'Kigali'), 'an entity has start, end and label'),
    (line(text=None), 'the text is None'),
    (line(text=['Rais']), 'the text is '),
    (line(entities=None), 'no list of entities'),
    ('[1]\n', 'no list of entities'),
    ('['*100000+'\n', 'recursion'),
    ('Sure! Here they are.\n', 'Expecting value'),
    (GOOD.encode('utf-16-le').replace(b'\n\0', b'')+b'\n', ''),
    (GOOD.encode().replace(b'Ruto', b'R\xfcto'), 'utf-8'),
    (line(PER, text='Rais William Ruto'), 'another text than sentence 2 here')])
def test_a_line_of_json_that_cannot_be_right(tmp_path, bad, why):
    bad = bad if isinstance(bad, bytes) else bad.encode()
    with pytest.raises(DataError, match=rf'f\.jsonl:3: .*{why}'): read(tmp_path, GOOD.encode()+b'\n'+bad)

CONLL = 'Rais O\nWilliam B-PER .9\nRuto I-PER .9\naliwasili O\nKigali B-LOC\n. O\n\n'
@pytest.mark.parametrize('bad, line, why', [
    (CONLL.replace('.9', 'nan', 1), '9', 'a score is a number from 0 to 1, not nan'),
    (CONLL.replace('.9', 'inf', 1), '9', 'a score is a number from 0 to 1, not inf'),
    (CONLL.replace('.9', '-1', 1), '9', 'a score is a number from 0 to 1, not -1'),
    (CONLL.replace('.9', 'high', 1), '9', 'could not convert'),
    (CONLL.replace('aliwasili O', 'aliwasili'), '11', 'a line is a word, its tag and perhaps a probability'),
    (CONLL.replace('Kigali', 'Kampala'), '12', 'another word than in the text'),
    (CONLL.replace('. O\n', ''), '12', 'another word than in the text'),
    (CONLL.encode().replace(b'Ruto', b'R\xfcto'), '10:2', 'is not UTF-8')])
def test_a_line_of_columns_that_cannot_be_right(tmp_path, bad, line, why):
    bad = bad if isinstance(bad, bytes) else bad.encode()
    with pytest.raises(DataError, match=rf'f\.conll:{line}: .*{why}'): read(tmp_path, CONLL.encode()+bad, name='f.conll')

@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_both_forms_say_the_same(tmp_path, mark):
    "With a byte-order mark too, and with a document marker"
    lines = read(tmp_path, mark+line(dict(PER, score=.9), dict(LOC, start=28.)).encode()*2)
    columns = read(tmp_path, mark+b'-DOCSTART- O\n'+CONLL.encode()*2, name='f.conll')
    assert lines.tags == columns.tags == [TAGS]*2 and lines.scores == columns.scores
    assert lines.counts == columns.counts == {'as predicted': 4}

def test_words_with_a_no_break_space(tmp_path):
    (tmp_path/'f.conll').write_text('Real\u00a0Madrid B-LOC\nwins O\n')
    assert read_system(tmp_path/'f.conll', [['Real\u00a0Madrid', 'wins']], SCHEMA).tags == [['B-LOC', 'O']]

def test_tags_that_do_not_begin_with_b_are_counted(tmp_path):
    content = CONLL.replace('B-PER', 'I-PER').replace('B-LOC', 'LOC')
    predictions = read(tmp_path, content, sentences=1, name='f.conll')
    assert predictions.tags == [TAGS]
    assert predictions.counts == {'begun by I-': 1, 'begun by a type alone': 1, 'as predicted': 2}

def test_a_file_that_is_not_there_or_does_not_fit(tmp_path):
    with pytest.raises(DataError, match='no such file'): read_system(tmp_path/'none.jsonl', [WORDS], SCHEMA)
    with pytest.raises(DataError, match='2 lines, the text has 3 sentences'): read(tmp_path, GOOD*2, sentences=3)
    with pytest.raises(DataError, match='2 sentences, the text has 3'): read(tmp_path, CONLL*2, sentences=3, name='f.conll')
    with pytest.raises(DataError, match='nothing can be used .*mapping'): read(tmp_path, line(dict(PER, label='PERSON'))*2)

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)
    | st.dictionaries(st.sampled_from(['text', 'entities', 'start', 'end', 'label', 'score']), x, max_size=4), max_leaves=8)

@SAME_FOLDER
@given(entity=st.fixed_dictionaries(dict(start=JSON, end=JSON, label=JSON), optional=dict(score=JSON)), text=st.just(TEXT) | JSON)
def test_any_json_gives_predictions_or_a_data_error(tmp_path, entity, text):
    try: predictions = read(tmp_path, line(entity, text=text), sentences=1)
    except DataError as e: assert 'f.jsonl' in str(e)
    else: assert len(predictions.tags[0]) == len(WORDS)

@SAME_FOLDER
@given(st.lists(st.tuples(st.integers(0, 35), st.integers(0, 35), st.sampled_from(['PER', 'LOC', 'DATE', 'PERSON']),
    st.none() | st.floats(0, 1)), max_size=6))
@example([(0, 1, 'PER', None), (0, 1, 'PER', 0.)])
def test_every_entity_is_counted_once(spans):
    entities = [dict(start=b, end=e, label=l, score=s) for b, e, l, s in spans]
    counts = Counter()
    tags, scores = place_spans(entities, word_places(TEXT, WORDS), SCHEMA.types, dict(PERSON='PER', DATE='O'), counts)
    assert sum(counts.values()) == len(entities) and len(tags) == len(scores) == len(WORDS)
    for before, tag in zip(['O', *tags], tags): assert tag[:2] != 'I-' or before in (tag, 'B-'+tag[2:])
    again = place_spans(entities[::-1], word_places(TEXT, WORDS), SCHEMA.types, dict(PERSON='PER', DATE='O'), Counter())
    if len({s for *_, s in spans}) == len(spans): assert again == (tags, scores)

def test_probabilities_of_a_teacher(tmp_path):
    p = as_annotations(read(tmp_path, line(dict(PER, score=.6), dict(LOC, score=0))*2), SCHEMA, confidence=.8).probabilities
    assert p.shape == (12, 5) and p.argmax(1).tolist()[:4] == [0, 1, 2, 0]
    assert p[1].tolist() == pytest.approx([.1, .6, .1, .1, .1], abs=1e-3)
    assert p[4].tolist() == pytest.approx([.2]*5, abs=1e-3)   # a score below 1/C would say that the tag is the least likely
