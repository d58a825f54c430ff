"Intervals and tests against independent computation: enumeration, plain loops, scipy, seqeval, another package's almost stochastic order."
import itertools, random, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mtmt.compare import almost_stochastic_order, entity_counts, f1_of, holm, interval, randomisation_test
from mtmt.eval import scores

def system(rng, n):
    there, said = rng.poisson(2, n), rng.poisson(2, n)
    return np.stack([rng.binomial(np.minimum(said, there), .6), said, there], 1)

tags = st.lists(st.lists(st.sampled_from(['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']), min_size=1, max_size=8), min_size=1, max_size=6)
@settings(max_examples=200, deadline=None)
@given(tags, st.randoms())
def test_counts_give_the_scorers_f1(gold, rng):
    "Broken sequences included: the sums are conlleval's"
    guess = [[t if rng.random() < .6 else rng.choice(['O', 'B-PER', 'I-PER', 'I-LOC']) for t in s] for s in gold]
    assert abs(f1_of(*entity_counts(gold, guess).T)-100*scores(gold, guess)['f1']) < 1e-9

def test_randomisation_is_the_enumeration():
    rng = np.random.default_rng(3)
    a, b = system(rng, 9), system(rng, 9)
    b[:, 2] = a[:, 2]
    f = lambda x: 200*x[:, 0].sum()/(x[:, 1].sum()+x[:, 2].sum())
    real = abs(f(a)-f(b))
    all_swaps = [abs(f(np.where(m, b, a))-f(np.where(m, a, b))) for s in itertools.product([False, True], repeat=9)
        for m in [np.array(s)[:, None]]]
    assert abs(randomisation_test(a, b)-np.mean([x >= real-1e-9 for x in all_swaps])) < 1e-12

@pytest.mark.parametrize('shift', [0, 4, 10])
def test_randomisation_is_the_plain_loop(shift):
    "Three seeds, 120 sentences: a loop over swaps, written down again"
    rng = np.random.default_rng(shift)
    a = np.stack([system(rng, 120) for _ in range(3)])
    b = a[:, rng.permutation(120)].copy()
    b[..., 2] = a[..., 2]
    b[:, :shift, 0] = 0
    flip = random.Random(0)
    f = lambda xs: np.mean([200*x[:, 0].sum()/(x[:, 1].sum()+x[:, 2].sum()) for x in xs]); real, hits = abs(f(a)-f(b)), 0
    for _ in range(3000):
        m = np.array([flip.random() < .5 for _ in range(120)])[None, :, None]
        hits += abs(f(np.where(m, b, a))-f(np.where(m, a, b))) >= real-1e-12
    assert abs(randomisation_test(a, b, 3000)-(hits+1)/3001) < .03

def test_interval_of_equal_systems_is_zero_and_covers_else():
    rng = np.random.default_rng(0); a = system(rng, 200); assert interval(a, a) == (0, 0)
    low, high = interval(a); assert low < f1_of(*a.T) < high and interval(a) == interval(np.stack([a, a]))

@pytest.mark.parametrize('n, m, d', [(5, 5, 0), (5, 5, 1), (10, 8, .5), (20, 20, .3), (3, 3, 2), (5, 5, -1)])
def test_almost_stochastic_order_is_deep_significances(n, m, d):
    from deepsig import aso
    rng = np.random.default_rng(0)
    a, b = rng.normal(d, 1, n), rng.normal(0, 1, m)
    assert abs(aso(a, b, seed=1, show_progress=False)-almost_stochastic_order(a, b)) < .06

def test_holm(): assert np.allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02]) and holm([.9]) == [.9]
