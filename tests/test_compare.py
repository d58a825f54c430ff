"Intervals and tests against independent computation: enumeration, plain loops, scipy, simulation, another package's almost stochastic order."
import itertools, json, random, shutil, tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from conftest import ROOT
from mtmt.compare import CompareError, almost_stochastic_order, check_comparable, compare, entity_counts, f1_of, figures
from mtmt.compare import _order_bound, holm, interval, over_targets, randomisation_test, recompute, shared_tests
from mtmt.data import MtmtError, Schema, content_hash, dataset, sealed
from mtmt.eval import scores, signature
from mtmt.records import pack_runs, read_predictions, read_runs, write_record

# Helpers, also for test_report

def gold_tags(sentences=60):
    "Gold tags: a person in each sentence, a place in every second one"
    return [['B-PER', 'I-PER', 'O', 'B-LOC' if i%2 else 'O', 'O'] for i in range(sentences)]

def changed(gold, share, seed):
    "Tags in which a share of the sentences, drawn at random, lose their entities"
    lost = np.random.default_rng(seed).random(len(gold)) < share
    return [['O']*len(tags) if gone else list(tags) for tags, gone in zip(gold, lost)]

def made_run(to, method, seed, gold, tags, target='sw', **more):
    "The folder of a finished run with these tags"
    words = [[f'w{i}', 'na', 'kwa', 'Kano', '.'] for i in range(len(gold))]
    ids = more.pop('ids', [f'test-{i:03}' for i in range(len(gold))])
    about = dict(benchmark='corpus', sources=['en'], encoder='tiny', parallel=True, options={}, made_from={}, recipe={}) | more
    data = content_hash(dataset(words, gold, Schema(tuple(sorted({t[2:] for s in gold for t in s if t != 'O'})))))
    line = signature(about['sources'], target, about['benchmark'], data, 'source-dev' if about['sources'] else 'none')
    systems = dict(recognizer=tags) if method == 'direct' else dict(recognizer=gold, student=tags)
    name = more.get('run', f'{about["benchmark"]}-{target}-{method}-s{seed}')
    record = about | dict(run=name, target=target, method=method, seed=seed, signature=line) | figures(gold, systems) | more
    write_record(to/name, record, words, ids, gold, systems)
    return to/name

def system(rng, n):
    "Counts of a system on n sentences"
    there, predicted = rng.poisson(2, n), rng.poisson(2, n)
    return np.stack([rng.binomial(np.minimum(predicted, there), .6), predicted, there], 1)

tags = st.lists(st.lists(st.sampled_from(['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']), min_size=1, max_size=8), min_size=1, max_size=6)

# Counts

@settings(max_examples=200, deadline=None)
@given(tags, st.randoms())
def test_counts_give_the_scorers_f1(gold, rng):
    "Broken sequences included: the sums are conlleval's"
    guess = [[t if rng.random() < .6 else rng.choice(['O', 'B-PER', 'I-PER', 'I-LOC']) for t in s] for s in gold]
    assert abs(f1_of(*entity_counts(gold, guess).T)-100*scores(gold, guess)['f1']) < 1e-9

def test_a_test_without_sentences_counts_nothing():
    assert entity_counts([], []).shape == (0, 3)

# Chance in the sentences

def test_randomisation_is_the_enumeration():
    rng = np.random.default_rng(3)
    a, b = system(rng, 9), system(rng, 9)
    b[:, 2] = a[:, 2]
    f1 = lambda x: 200*x[:, 0].sum()/(x[:, 1].sum()+x[:, 2].sum())
    real = abs(f1(a)-f1(b))
    masks = [np.array(s)[:, None] for s in itertools.product([False, True], repeat=9)]
    all_swaps = [abs(f1(np.where(m, b, a))-f1(np.where(m, a, b))) for m in masks]
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
    f1 = lambda xs: np.mean([200*x[:, 0].sum()/(x[:, 1].sum()+x[:, 2].sum()) for x in xs])
    real, hits = abs(f1(a)-f1(b)), 0
    for _ in range(3000):
        m = np.array([flip.random() < .5 for _ in range(120)])[None, :, None]
        hits += abs(f1(np.where(m, b, a))-f1(np.where(m, a, b))) >= real-1e-12
    assert abs(randomisation_test(a, b, 3000)-(hits+1)/3001) < .03

# Intervals

def test_interval_of_equal_systems_is_zero_and_covers_else():
    rng = np.random.default_rng(0)
    a = system(rng, 200)
    low, high = interval(a)
    assert interval(a, a) == (0, 0) and low < f1_of(*a.T) < high and interval(a) == interval(np.stack([a, a]))

def test_interval_of_one_seed_is_scipys():
    "Of one system, and of a difference on the same sentences"
    rng = np.random.default_rng(1)
    a, b = system(rng, 300), system(rng, 300)
    b[:, 2] = a[:, 2]
    alone = stats.bootstrap(tuple(a.T), f1_of, paired=True, method='percentile', rng=1).confidence_interval
    difference = lambda r, p, t, s, q, axis=-1: f1_of(r, p, t, axis)-f1_of(s, q, t, axis)
    both = stats.bootstrap((*a.T, *b.T[:2]), difference, paired=True, method='percentile', rng=1).confidence_interval
    assert np.allclose(interval(a, draws=9999), alone, atol=.3) and np.allclose(interval(a, b, draws=9999), both, atol=.4)

def stretch(seeds): return np.sqrt(seeds/(seeds-1))*stats.t.ppf(.975, seeds-1)/stats.norm.ppf(.975)

def same_everywhere(*skills):
    "Seeds whose sentences are all alike: drawing sentences changes nothing"
    return np.stack([np.tile([k, 100, 100], (50, 1)) for k in skills])

def test_drawn_seeds_are_the_enumeration():
    "All 27 draws of three seeds, equally likely: the quantiles of their means, stretched"
    c = same_everywhere(50, 52, 56)
    f1 = np.array([50, 52, 56])
    drawn = [np.mean(f1[list(i)]) for i in itertools.product(range(3), repeat=3)]
    low, high = np.quantile(drawn, [.025, .975], method='inverted_cdf')
    assert np.allclose(interval(c), f1.mean()+stretch(3)*(np.array([low, high])-f1.mean()))

def test_pairs_are_drawn_together_and_others_are_not():
    "A method that is 10 points above another with every seed: in pairs the difference is sure"
    a, b = same_everywhere(50, 60, 80, 70, 60), same_everywhere(40, 50, 70, 60, 50)
    low, high = interval(a, b, paired=False)
    assert np.allclose(interval(a, b), 10) and low < 5 and high > 15
    assert interval(a, b[:3]) != interval(a[:3], b[:3]) and interval(a, b[:1])[0] < 20 < interval(a, b[:1])[1]

def test_interval_is_the_plain_loop():
    "Four seeds, 150 sentences: seeds drawn, sentences drawn, added up by a loop"
    rng = np.random.default_rng(5)
    there = rng.poisson(2, 150)
    skills = (.4, .5, .55, .7)
    c = np.stack([np.stack([rng.binomial(there, k), there, there], 1) for k in skills])
    f1 = lambda x: 200*x[:, 0].sum()/(x[:, 1].sum()+x[:, 2].sum())
    seen = np.array([f1(x) for x in c])
    moves = np.array([[f1(x[i]) for x in c] for i in rng.integers(0, 150, (2000, 150))])
    own = np.mean((moves-moves.mean(1, keepdims=True)).var(0))*4/3
    rest = np.sqrt(1-own/seen.var(ddof=1))
    drawn = [m.mean()+stretch(4)*rest*(seen[rng.integers(0, 4, 4)].mean()-seen.mean()) for m in moves]
    assert np.allclose(interval(c, draws=8000), np.percentile(drawn, [2.5, 97.5]), atol=.9)

def invented(rng, seeds, spread, gain=0., luck=None):
    "Counts of runs that find 60 % of the entities on average; seeds differ, and sentences are easy or hard"
    there = np.broadcast_to(rng.poisson(2, 200), (seeds, 200))
    luck = rng.normal(0, spread, (seeds, 1)) if luck is None else luck
    easy = rng.uniform(-.2, .2, 200)
    made = [np.stack([rng.binomial(there, (.6+g+luck+easy).clip(0, 1)), there, there], 2) for g in (0., gain)]
    return made if gain else made[0]

@pytest.mark.parametrize('seeds, spread', [(3, .04), (5, .0), (5, .06)])
def test_coverage_is_about_95_percent(seeds, spread):
    "The truth is inside in 91 to 99.5 % of 250 experiments; over sentences alone it is not, where seeds differ"
    rng, inside, alone = np.random.default_rng(seeds), 0, 0
    for _ in range(250):
        c = invented(rng, seeds, spread)
        low, high = interval(c, draws=300)
        inside += low <= 60 <= high
        low, high = interval(c.sum(0), draws=300)
        alone += low <= 60 <= high
    assert .91 <= inside/250 <= .995
    assert alone/250 < .91 if spread else alone/250 > .91

def test_coverage_of_a_difference_in_pairs():
    "Two methods that share the luck of their seeds, the second 5 points better"
    rng, inside, width = np.random.default_rng(0), 0, []
    for _ in range(250):
        a, b = invented(rng, 5, .05, .05)
        low, high = interval(b, a, draws=300)
        inside += low <= 5 <= high
        width.append((high-low, np.diff(interval(b, a, draws=300, paired=False))[0]))
    assert .91 <= inside/250 <= .995 and np.mean([x < y for x, y in width]) > .9

def test_an_interval_stays_within_what_f1_can_be():
    low, high = interval(same_everywhere(0, 100))
    assert (low, high) == (0, 100)

# Order of seeds

@pytest.mark.parametrize('n, m, d', [(5, 5, 0), (5, 5, 1), (10, 8, .5), (20, 20, .3), (5, 5, -1)])
def test_almost_stochastic_order_is_deep_significances(n, m, d):
    from deepsig import aso
    rng = np.random.default_rng(0)
    a, b = rng.normal(d, 1, n), rng.normal(0, 1, m)
    assert abs(aso(a, b, seed=1, show_progress=False)-almost_stochastic_order(a, b)) < .06

def test_the_bound_itself_is_deep_significances_with_three_seeds():
    from deepsig import aso
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 3), rng.normal(0, 1, 3)
    assert abs(aso(a, b, seed=1, show_progress=False)-_order_bound(a, b, .95, 1, 1000, 0)) < .06

def test_few_seeds_have_no_order():
    "Under the null the bound of three seeds is under .5 in about a fifth of cases: none is given"
    rng = np.random.default_rng(0)
    null = [_order_bound(*rng.normal(0, 1, (2, 3)), .95, 1, 200, 0) for _ in range(300)]
    assert .1 < np.mean(np.array(null) < .5) < .3
    for n, m in ((3, 3), (4, 9), (9, 4)): assert almost_stochastic_order(range(10, 10+n), range(m)) is None
    assert almost_stochastic_order(range(10, 15), range(5)) == 0

def test_holm():
    assert np.allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02]) and holm([.9]) == [.9] and holm([]) == []

# Two methods

def test_compare_says_what_its_interval_covers(tmp_path):
    gold = gold_tags()
    runs = {m: [made_run(tmp_path, m, s, gold, changed(gold, share, [s, ord(m[0])])) for s in range(6)]
        for m, share in (('direct', .5), ('tsl', .3))}
    paired = compare(runs['tsl'], runs['direct'][::-1], draws=99)
    assert paired['seeds'] == '6 seeds, in pairs' and paired['aso'] == 0 and paired == compare(runs['tsl'], runs['direct'], draws=99)
    three = compare(runs['tsl'][:3], runs['direct'], draws=99)
    assert three['seeds'] == '3 and 6 seeds, independently' and three['aso'] is None
    one = compare(runs['tsl'][:1], runs['direct'][:1], draws=99)
    assert one['seeds'] == 'one seed: sentences alone'
    assert 'a single seed is taken as fixed' in compare(runs['tsl'][:1], runs['direct'], draws=99)['seeds']
    with pytest.raises(CompareError, match='not comparable: tgt is sw and yo.*may_differ: tgt'):
        compare(runs['tsl'], [made_run(tmp_path, 'direct', 0, gold, gold, 'yo')])

def test_signatures_that_may_differ():
    one = signature(['en'], 'sw', 'corpus', 'ab'*20)
    check_comparable(one, one.replace('src:en', 'src:en+de'), ['src'])
    with pytest.raises(CompareError, match='src is en and en.de, data is'):
        check_comparable(one, one.replace('src:en', 'src:en+de').replace('abab', 'ffff'))

# Several targets

def test_parallel_targets_are_drawn_together(tmp_path):
    "A target beside itself is as sure as the target alone, in whatever order its sentences are; as another text it is surer"
    gold, order = gold_tags(), np.random.default_rng(0).permutation(60)
    shuffled = lambda x: [x[i] for i in order]
    for method, share in (('direct', .5), ('tsl', .3)):
        tags = changed(gold, share, len(method))
        made_run(tmp_path/'one', method, 0, gold, tags)
        for folder, parallel in (('parallel', True), ('apart', False)):
            made_run(tmp_path/folder, method, 0, gold, tags, parallel=parallel)
            made_run(tmp_path/folder, method, 0, shuffled(gold), shuffled(tags), 'yo', parallel=parallel,
                ids=[f'test-{i:03}' for i in order])
    rows = {f: over_targets(tmp_path/f, ['direct', 'tsl'], 'direct').rows[1] for f in ('one', 'parallel', 'apart')}
    width = {f: r['difference_high']-r['difference_low'] for f, r in rows.items()}
    assert rows['one'] == rows['parallel'] and np.isclose(width['apart'], width['one']/np.sqrt(2), rtol=.12)
    assert rows['apart']['difference'] == rows['one']['difference']

def test_over_one_target_is_the_comparison_of_it(tmp_path):
    gold = gold_tags()
    runs = {m: [made_run(tmp_path, m, s, gold, changed(gold, share+s/50, [s, ord(m[0])])) for s in range(3)]
        for m, share in (('direct', .5), ('tsl', .3))}
    pair = compare(runs['tsl'], runs['direct'], draws=99)
    row = over_targets(tmp_path, ['tsl', 'direct'], 'direct').rows[0]
    assert np.allclose([row['difference_low'], row['difference_high'], row['f1']], [pair['low'], pair['high'], pair['f1']])
    assert np.isclose(np.mean(list(row['seeds'].values())), row['f1']) and list(row['seeds']) == [0, 1, 2]

def test_only_targets_and_seeds_that_are_everywhere(tmp_path):
    gold = gold_tags(20)
    for target, method, seeds in (('sw', 'direct', (0, 1)), ('sw', 'tsl', (0, 1, 2)), ('yo', 'direct', (0, 1)), ('yo', 'tsl', (0, 1)),
        ('ha', 'tsl', (0,))):
        for s in seeds: made_run(tmp_path, method, s, gold, changed(gold, .4, [s, ord(target[0])]), target)
    found = over_targets(tmp_path, ['direct', 'tsl'])
    assert found.tests == ['sw', 'yo'] and list(found.rows[1]['seeds']) == [0, 1]
    assert found.notes[:2] == ['ha is not in the mean: no direct', 'tsl: without seed 2, not there on every target']
    assert 'difference' not in found.rows[1]
    assert over_targets(tmp_path, ['tsl'], targets=['ha']).notes == ['tsl: one seed, so its interval is over sentences alone']
    assert over_targets(tmp_path, dict(theirs=['tsl']), seeds=[0]).rows[0]['system'] == 'theirs'
    with pytest.raises(CompareError, match="no runs of tls.*Did you mean 'tsl'"): over_targets(tmp_path, ['tls'])
    with pytest.raises(CompareError, match="baseline: 'direct' is not among"): over_targets(tmp_path, ['tsl'], 'direct')
    with pytest.raises(CompareError, match='no runs of direct with these'): over_targets(tmp_path, ['direct', 'tsl'], targets=['ha'])

def test_one_name_for_the_same_arm_on_several_targets(tmp_path):
    "Sources differ where a source is the target: the arm has two names in the folder, and one in the table"
    gold = gold_tags(20)
    for target, more in (('sw', ['en', 'de']), ('de', ['en', 'es'])):
        for sources in (['en'], more):
            made_run(tmp_path, 'direct', 0, gold, changed(gold, .3, len(sources)), target, sources=sources, run=f'{target}-{len(sources)}')
    arms = dict(one=['direct (sources=en)'], pot=['direct (sources=en+de)', 'direct (sources=en+es)'])
    found = over_targets(tmp_path, arms, 'one')
    assert [r['system'] for r in found.rows] == ['one', 'pot'] and set(found.tests) == {'sw', 'de'}
    with pytest.raises(CompareError, match='src is'): over_targets(tmp_path, arms, may_differ=())
    with pytest.raises(CompareError, match='have the same seed'): over_targets(tmp_path, dict(all=sum(arms.values(), [])))

@settings(max_examples=100, deadline=None)
@given(st.sets(st.tuples(st.sampled_from('abcd'), st.sampled_from(['direct', 'tsl', 'mtmt'])), min_size=1))
def test_shared_tests_are_those_of_every_system(cells):
    rows = [dict(target=t, method=m) for t, m in sorted(cells)]
    shared, lines = shared_tests(rows)
    methods = {m for _, m in cells}
    assert set(shared) == {t for t, _ in cells if {m for u, m in cells if u == t} == methods}
    assert len(lines)+len(shared) == len({t for t, _ in cells})

# Again, from what was kept

@pytest.fixture
def spoilt():
    "A folder for runs that are spoilt on purpose: conftest computes those under tmp_path again"
    with tempfile.TemporaryDirectory() as folder: yield Path(folder)

def edited(folder, to, **more):
    "A copy of a run with some of its record changed"
    copy = shutil.copytree(folder, to)
    path = copy/'run.json'
    # with a seal, as a version with a defect in scoring would write it
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | more)))
    return copy

def test_every_stored_figure_is_computed_again(spoilt):
    gold = gold_tags()
    run = made_run(spoilt/'runs', 'tsl', 0, gold, changed(gold, .4, 0))
    about = json.loads((run/'run.json').read_text())
    assert not recompute(run)
    for key in ('precision', 'recall', 'f1', 'strict_f1', 'teacher_f1'):
        assert recompute(edited(run, spoilt/key, **{key: .123})).startswith(f'{key} is 0.1230, its predictions give ')
    for key in ('f1', 'support'):
        types = about['types'] | dict(PER=about['types']['PER'] | {key: 1})
        assert recompute(edited(run, spoilt/f'types-{key}', types=types)).startswith(f'types.PER.{key} is 1.0000')
    systems = about['systems'] | dict(recognizer=dict(f1=.5, strict_f1=1.))
    assert 'systems.recognizer.f1 is 0.5000' in recompute(edited(run, spoilt/'systems', systems=systems))
    assert 'types.LOC.f1 is missing' in recompute(edited(run, spoilt/'less', types=dict(PER=about['types']['PER'])))

@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_a_figure_that_is_no_number_is_an_error(spoilt, value):
    gold = gold_tags()
    run = made_run(spoilt/'runs', 'tsl', 0, gold, changed(gold, .4, 0))
    assert recompute(edited(run, spoilt/'f1', f1=value)).startswith(f'f1 is {value}')
    assert recompute(edited(run, spoilt/'loss', curve=dict(loss=[.5, value]))) == f'curve.loss.1 is {value}, not a number'

def test_damage_is_named(spoilt):
    gold = gold_tags()
    run = made_run(spoilt/'runs', 'tsl', 0, gold, changed(gold, .4, 0))
    ids = shutil.copytree(run, spoilt/'ids')
    (ids/'sentences.txt').write_text('test-001\n')
    assert recompute(ids) == 'sentences.txt is missing or was changed'
    (ids/'predictions.conll').unlink()
    assert recompute(ids) == 'predictions.conll is missing or was changed; sentences.txt is missing or was changed'
    with pytest.raises(MtmtError, match='predictions.conll: the file is missing'): read_predictions(ids)
    other = json.loads((run/'run.json').read_text())['signature'].replace('sha256:', 'sha256:0')
    assert 'the test data are not those of its signature' in recompute(edited(run, spoilt/'data', signature=other))
    assert 'does not hold the hashes' in recompute(edited(run, spoilt/'hashes', files={}))
    for broken in ('', '[]', '{"run": 1}', '{"run": "x", "signature": "y", "systems": {"student": {}}}'):
        folder = shutil.copytree(run, spoilt/f'broken{len(broken)}')
        (folder/'run.json').write_text(broken)
        assert 'cannot be read: ' in recompute(folder)

def test_runs_packed_without_words_give_every_figure_and_no_word(tmp_path, spoilt):
    "What may be published of a licensed test: its words are nowhere, a changed tag is noticed"
    lesson = ROOT/'data'/'lesson_run'
    names = pack_runs(lesson, tmp_path/'tags.tar.xz', with_words=False)
    shutil.unpack_archive(tmp_path/'tags.tar.xz', tmp_path/'tags')
    words = {word for sentence in read_predictions(lesson/names[0])[0] for word in sentence if len(word) > 6}
    packed = ''.join(f.read_text(encoding='utf-8') for f in (tmp_path/'tags').rglob('*.*') if f.is_file())
    # a word of the test may be a word of the record too, such as the name of a library
    assert sum(word in packed for word in words) < len(words)/100
    assert [recompute(tmp_path/'tags'/name) for name in names] == ['']*len(names)
    run = shutil.copytree(tmp_path/'tags'/names[0], spoilt/names[0])
    (run/'predictions.conll').write_text((run/'predictions.conll').read_text().replace('B-LOC', 'B-PER', 1))
    assert 'predictions.conll is missing or was changed' in recompute(run)

@pytest.mark.parametrize('path', sorted((ROOT/'data'/'results').glob('*.tar.xz')), ids=lambda p: p.name)
def test_stored_results_are_what_their_predictions_give(path, tmp_path):
    "The runs behind a table of the pages: whole, current, and every figure comes out again"
    shutil.unpack_archive(path, tmp_path)
    found = read_runs(tmp_path)
    assert found.rows and not found.left_out
    assert not {row['run']: why for row in found.rows if (why := recompute(tmp_path/row['run']))}
