"Scores equal conlleval's on random corpora, broken tag sequences included; decoding finds the best valid sequence."
import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from mtmt.entities import KINDS, match, schema_of_tags, tag_numbers, text_spans
from mtmt.eval import SIGNATURE, EvalError, decode, disagreements, scores, signature, valid_bio

TAGS = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']

def conlleval(gold, predicted):
    "Precision, recall and F1 by the rules of the CoNLL-2000 script, a word at a time"
    def starts(before, tag): return tag != 'O' and (tag[0] == 'B' or before == 'O' or before[2:] != tag[2:])
    def ends(tag, after): return tag != 'O' and (after == 'O' or after[0] == 'B' or after[2:] != tag[2:])
    right = found = there = 0
    for g, p in zip(gold, predicted):
        g, p, open_ = ['O', *g, 'O'], ['O', *p, 'O'], False
        for i in range(1, len(g)):
            if open_:
                eg, ep = ends(g[i-1], g[i]), ends(p[i-1], p[i])
                if eg and ep:
                    right += 1
                    open_ = False
                elif eg != ep or g[i][2:] != p[i][2:]: open_ = False
            sg, sp = starts(g[i-1], g[i]), starts(p[i-1], p[i])
            if sg and sp and g[i][2:] == p[i][2:]: open_ = True
            there += sg
            found += sp
    p, r = right/found if found else 0., right/there if there else 0.
    return p, r, 2*p*r/(p+r) if p+r else 0.

corpora = st.lists(st.integers(1, 8).flatmap(lambda n: st.tuples(st.lists(st.sampled_from(TAGS), min_size=n, max_size=n),
    st.lists(st.sampled_from(TAGS), min_size=n, max_size=n))), min_size=1, max_size=6)

@settings(max_examples=1000, deadline=None)
@given(corpora)
def test_headline_equals_conlleval(corpus):
    gold, predicted = [g for g, _ in corpus], [p for _, p in corpus]
    s = scores(gold, predicted)
    assert np.allclose((s['precision'], s['recall'], s['f1']), conlleval(gold, predicted))

@settings(max_examples=200, deadline=None)
@given(corpora)
def test_strict_equals_seqeval_strict(corpus):
    gold, predicted = [g for g, _ in corpus], [p for _, p in corpus]
    assert np.isclose(scores(gold, predicted)['strict']['f1'], f1_score(gold, predicted, mode='strict', scheme=IOB2, zero_division=0))

def counts(gold, predicted):
    "Entities right, predicted and there, by the kit's own matcher"
    names, lengths = schema_of_tags(gold, predicted).tags, [len(s) for s in gold]
    a, b = (text_spans(tag_numbers(tags, names), names, lengths) for tags in (gold, predicted))
    return int((match(a, b).kind == KINDS.index('same')).sum()), len(b), len(a)

@settings(max_examples=300, deadline=None)
@given(corpora)
def test_the_matcher_counts_what_the_scorer_counts(corpus):
    gold, predicted = [g for g, _ in corpus], [p for _, p in corpus]
    right, found, there = counts(gold, predicted)
    s = scores(gold, predicted)
    assert np.allclose((s['precision'], s['recall']), (right/found if found else 0, right/there if there else 0))
    assert sum(x['support'] for x in s['types'].values()) == there

@settings(max_examples=200, deadline=None)
@given(corpora)
def test_a_sentence_differs_where_its_entities_do(corpus):
    gold, predicted = [g for g, _ in corpus], [p for _, p in corpus]
    rows = disagreements(gold, dict(gold=gold, predicted=predicted))
    pairs = {r['sentence']: r['differences'] for r in rows}
    for i, (g, p) in enumerate(zip(gold, predicted)):
        right, found, there = counts([g], [p])
        # each place that is not the same holds one entity or two
        assert max(found, there)-right <= pairs.get(i, 0) <= found+there-2*right
        assert (i in pairs) == (found != right or there != right)
    assert [r['differences'] for r in rows] == sorted(pairs.values(), reverse=True)

def test_refuses_other_lengths():
    with pytest.raises(EvalError, match='sentence 1: 1 tags for 2 words'): scores([['O'], ['O', 'O']], [['O'], ['O']])
    with pytest.raises(EvalError, match='1 predicted sentences for 2 gold ones'): scores([['O'], ['O']], [['O']])

def parts(text):
    head, *each = text.split('|')
    assert head == 'mtmt'
    return dict(x.split(':', 1) for x in each)

def test_a_signature_says_what_differs():
    "Every parameter changes the line, in its own key, and the keys keep the declared order"
    given = dict(sources=['en'], target='sw', data='corpus', data_hash='ab'*32, select='source-dev', repair='none', seeds=1,
        boundaries='sentence', version='0.1.0', encoder='embedded@'+'cd'*32, source_data='corpus', decode='argmax', limit=0, dev_limit=0)
    other = dict(sources=['en', 'de'], target='ha', data='conll', data_hash='ba'*32, select='last', repair='orphan I:2', seeds=3,
        boundaries='flat', version='0.2.0', encoder='embedded@'+'dc'*32, source_data='wikiann', decode='bio', limit=100, dev_limit=50)
    keys = dict(sources='src', target='tgt', data='data', data_hash='data', version='v', encoder='enc', source_data='srcdata',
        dev_limit='devlimit')
    base = parts(signature(**given))
    assert (base['enc'], base['limit'], base['devlimit'], base['decode']) == ('embedded@cdcdcdcd', 'all', 'all', 'argmax')
    for name, value in other.items():
        changed = parts(signature(**given | {name: value}))
        assert {k for k in base | changed if base.get(k) != changed.get(k)} == {keys.get(name, name)}
        assert [k for k in SIGNATURE if k in changed] == list(changed)

def test_no_value_can_break_a_signature():
    text = signature(['en'], 'sw', 'a|b:c', 'ab'*32, encoder='my|folder@'+'cd'*32)
    assert parts(text)['data'] == 'a%7Cb:c@sha256:abababab' and parts(text)['enc'] == 'my%7Cfolder@cdcdcdcd'

@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 10**6))
def test_viterbi_is_the_best_valid_sequence(lengths, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(3), sum(lengths))
    tags = TAGS[:3]
    ok = valid_bio(tags)
    out = decode(p, lengths, tags, 'bio')
    at = 0
    assert [len(s) for s in out] == lengths
    for n, got in zip(lengths, out):
        best = max((s for s in itertools.product(range(3), repeat=n) if all(ok[a, b] for a, b in zip((3, *s), s))),
            key=lambda s: sum(np.log(p[at+i, t]+1e-12) for i, t in enumerate(s)))
        assert got == [tags[t] for t in best]
        at += n
