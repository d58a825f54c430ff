"Entities of whole texts are those of their sentences; the matcher against a plain slow one, and with its readings exchanged."
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mtmt.data import MtmtError
from mtmt.entities import KINDS, Places, match, schema_of_tags, spans, tag_numbers, text_spans, types_of

TAGS = ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
sentence = st.integers(0, 10).flatmap(lambda n: st.tuples(*[st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)]*2))
texts = st.lists(sentence, min_size=1, max_size=5)

def read(tags):
    "Entities of some sentences, as the kit reads a whole text"
    return text_spans(tag_numbers(tags, TAGS), TAGS, [len(s) for s in tags])

def slow_match(a, b):
    "The definition, word for word: of all pairs that are left take the best, until none is left"
    left = [(x, y) for x in a for y in b if x[0] < y[1] and y[0] < x[1]]
    out = []
    while left:
        order = lambda pair: (pair[0] != pair[1], pair[0][2] != pair[1][2],
            -(min(pair[0][1], pair[1][1])-max(pair[0][0], pair[1][0])), max(pair[0][0], pair[1][0]))
        x, y = best = min(left, key=order)
        out.append((x, y, 'same' if x == y else 'boundary' if x[2] == y[2] else 'type'))
        left = [pair for pair in left if pair[0] != best[0] and pair[1] != best[1]]
    out += [(x, None, 'missed') for x in a if all(x != pair[0] for pair in out)]
    return out+[(None, y, 'spurious') for y in b if all(y != pair[1] for pair in out)]

def listed(places, a, b):
    "Places as the slow matcher gives them"
    entity = lambda rows, i: tuple(map(int, rows[i])) if i >= 0 else None
    return [(entity(a, i), entity(b, j), KINDS[k]) for i, j, k in zip(places.first, places.second, places.kind)]

@settings(max_examples=500, deadline=None)
@given(texts)
def test_a_texts_entities_are_its_sentences(text):
    for side in (0, 1):
        tags = [pair[side] for pair in text]
        start = np.cumsum([0, *map(len, tags)])
        want = sorted((start[i]+b, start[i]+e, 1+types_of(TAGS).index(t)) for i, s in enumerate(tags) for b, e, t in spans(s))
        assert [tuple(x) for x in read(tags).tolist()] == want

@settings(max_examples=1000, deadline=None)
@given(texts)
def test_match_is_the_slow_one(text):
    a, b = (read([pair[side] for pair in text]) for side in (0, 1))
    rows = lambda x: [tuple(map(int, r)) for r in x]
    found = match(a, b)
    key = lambda p: (p[0] or (-1, -1, -1), p[1] or (-1, -1, -1), p[2])
    assert sorted(listed(found, a, b), key=key) == sorted(slow_match(rows(a), rows(b)), key=key)

@settings(max_examples=1000, deadline=None)
@given(texts)
def test_exchanged_readings_exchange_missed_and_spurious_alone(text):
    a, b = (read([pair[side] for pair in text]) for side in (0, 1))
    one, other = match(a, b), match(b, a)
    swap = dict(missed='spurious', spurious='missed')
    assert [KINDS[k] for k in other.kind] == [swap.get(KINDS[k], KINDS[k]) for k in one.kind]
    for mine, theirs in ((one.first, other.second), (one.second, other.first), (one.begin, other.begin), (one.end, other.end)):
        assert (mine == theirs).all()

@settings(max_examples=300, deadline=None)
@given(texts)
def test_each_entity_has_one_place(text):
    a, b = (read([pair[side] for pair in text]) for side in (0, 1))
    found = match(a, b)
    assert isinstance(found, Places)
    for rows, of in ((a, found.first), (b, found.second)): assert sorted(of[of >= 0]) == list(range(len(rows)))
    same = {tuple(x) for x in a.tolist()} & {tuple(x) for x in b.tolist()}
    assert (found.kind == KINDS.index('same')).sum() == len(same)
    assert sorted(zip(found.begin, found.end)) == list(zip(found.begin, found.end))
    # alone is who overlaps nobody that is alone too
    lone = [[rows[i] for i, j in zip(mine, theirs) if j < 0]
        for rows, mine, theirs in ((a, found.first, found.second), (b, found.second, found.first))]
    assert not any(x[0] < y[1] and y[0] < x[1] for x in lone[0] for y in lone[1])

CASES = [
    ('B-PER I-PER B-LOC', 'B-PER I-PER I-PER', ['boundary', 'missed']),
    ('B-PER B-PER B-LOC', 'B-PER I-PER I-PER', ['missed', 'boundary', 'missed']),
    ('B-PER I-PER I-PER', 'B-LOC I-LOC B-PER', ['spurious', 'boundary']),
    ('B-PER I-PER O', 'B-PER B-PER O', ['spurious', 'boundary']),
    ('B-LOC I-LOC O', 'B-PER I-PER O', ['type']),
    ('O O O', 'O O O', [])]

@pytest.mark.parametrize('gold, predicted, kinds', CASES)
def test_kinds_by_hand(gold, predicted, kinds):
    found = match(read([gold.split()]), read([predicted.split()]))
    assert sorted(KINDS[k] for k in found.kind) == sorted(kinds)

def test_equal_pairs_are_taken_from_the_left():
    found = match(read(['B-PER I-PER'.split()]), read(['B-PER B-PER'.split()]))
    assert found.second[found.first == 0].tolist() == [0]

def test_a_long_chain_of_overlaps():
    "Every pair waits for the one before it: the worst case, still right and quick"
    n = 400
    a = np.array([[4*i, 4*i+3, 1] for i in range(n)])
    b = np.array([[4*i+2, 4*i+5, 1] for i in range(n)])
    found = match(a, b)
    assert len(found.kind) == n and (found.first == found.second).all()

def test_a_large_text_takes_no_time():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 26, 20_000)
    readings = [rng.choice(5, lengths.sum(), p=[.6, .1, .1, .1, .1]).astype(np.uint8) for _ in range(2)]
    start = time.perf_counter()
    found = match(*(text_spans(r, TAGS, lengths) for r in readings))
    took = time.perf_counter()-start
    assert len(found.kind) > 50_000 and took < 3, took

def test_unknown_tags_are_named():
    with pytest.raises(MtmtError, match="sentence 1: tag 'I-PRE' is not among O, B-PER, I-PER. Did you mean 'I-PER'"):
        tag_numbers([['O'], ['O', 'I-PRE']], ['O', 'B-PER', 'I-PER'])
    assert schema_of_tags([['O', 'I-PER']], [['B-LOC', 'O']]).types == ('LOC', 'PER')

def test_more_types_than_a_byte_can_number():
    "300 types have 601 tags; each word comes back with its own"
    names = ['O', *(f'{edge}-T{i}' for i in range(300) for edge in 'BI')]
    tags = [['O', f'B-T{i}', f'I-T{i}'] for i in range(300)]
    numbers = tag_numbers(tags, names)
    assert [names[i] for i in numbers] == [tag for sentence in tags for tag in sentence]
    assert text_spans(numbers, names, [3]*300).tolist() == [[3*i+1, 3*i+3, i+1] for i in range(300)]
