"Kinds of error, slices and calibration against plain loops, another package's counts and runs from end to end."
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from safetensors.numpy import save

from mtmt.charts import as_svg, kind_chart, reliability_chart, slice_chart
from mtmt.compare import entity_counts, f1_of, interval, intervals, recompute
from mtmt.data import MtmtError, file_hash, sealed
from mtmt.entities import spans
from mtmt.eval import decode
from mtmt.records import read_predictions, read_probabilities, read_record
from mtmt.runs import run, score_system
from mtmt.slices import (SLICES, calibration_error, confidence, confidence_of_run, describe, entity_table, error_kinds, relations,
    reliability_curve, script, sliced, slices, slices_of_run)
from test_runs import recipe

tag = st.sampled_from(['O', 'O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC'])
word = st.sampled_from(['Ana', 'ana', 'Oslo', 'ya', '北京', 'नई', '7'])
# words, gold, predicted; broken tags included
texts = st.lists(st.lists(st.tuples(word, tag, tag), min_size=1, max_size=9), min_size=1,
    max_size=6).map(lambda t: tuple([[x[i] for x in s] for s in t] for i in range(3)))

def places(table, side): return sorted(table[table.side == side][['sentence', 'begin', 'end', 'type']].itertuples(index=False, name=None))

@settings(max_examples=300, deadline=None)
@given(texts)
def test_each_entity_is_assigned_once(text):
    words, gold, said = text
    t = entity_table(gold, said, words)
    n = t.groupby('side').kind.value_counts()
    of = lambda side, kind: int(n.get((side, kind), 0))
    for side, tags in (('gold', gold), ('predicted', said)):
        assert places(t, side) == sorted((i, *x) for i, s in enumerate(tags) for x in spans(s))
    assert all(of('gold', k) == of('predicted', k) for k in ('same', 'boundary', 'type'))
    assert not of('gold', 'spurious') and not of('predicted', 'missed')
    assert of('gold', 'same') == entity_counts(gold, said)[:, 0].sum()
    assert error_kinds(t)['count'].sum() == (t.side == 'gold').sum()+of('predicted', 'spurious')
    # the text's order: sentence by sentence, gold first
    assert t.sort_values(['sentence', 'side', 'begin'], kind='stable').index.tolist() == t.index.tolist()
    assert t.text.tolist() == [' '.join(words[r.sentence][r.begin:r.end]) for r in t.itertuples()]
    for r in t.itertuples():         # what is left over touches nothing that is left over too
        touching = (t.sentence == r.sentence) & (t.begin < r.end) & (t.end > r.begin)
        if r.kind == 'missed': assert t[(t.kind == 'spurious') & touching].empty

@settings(max_examples=300, deadline=None)
@given(texts)
def test_kinds_are_nervaluates(text):
    "Where no entity touches two of the other side there is nothing to choose, and the strict and ent_type schemes count what we count"
    from nervaluate import Evaluator
    words, gold, said = text
    touch = lambda a, b: a[0] < b[1] and b[0] < a[1]
    pairs = [(spans(a), spans(b)) for a, b in zip(gold, said)]
    assume(all(sum(touch(x, y) for y in other) < 2 for a, b in pairs for one, other in ((a, b), (b, a)) for x in one))
    as_dicts = lambda tags: [[dict(label=k, start=b, end=e-1) for b, e, k in sorted(spans(s))] for s in tags]
    found = Evaluator(as_dicts(gold), as_dicts(said), tags=['PER', 'LOC'], loader='dict').evaluate()['overall']
    n = error_kinds(entity_table(gold, said, words)).groupby('kind')['count'].sum()
    k = lambda *x: sum(n.get(i, 0) for i in x)
    strict, by_type = found['strict'], found['ent_type']
    assert (strict.correct, strict.incorrect) == (k('same'), k('boundary', 'type'))
    assert (strict.missed, strict.spurious) == (k('missed'), k('spurious'))
    assert (by_type.correct, by_type.incorrect) == (k('same', 'boundary'), k('type'))

CASES = [
    ('B-PER I-PER O', 'B-PER I-PER O', ['same'], ['same']),
    ('B-PER I-PER O', 'O O O', ['missed'], []),
    ('O O O', 'O B-PER O', [], ['spurious']),
    ('B-PER I-PER O', 'B-PER O O', ['boundary'], ['boundary']),
    ('B-PER I-PER O', 'B-LOC I-LOC O', ['type'], ['type']),
    ('B-PER I-PER O', 'O B-LOC I-LOC', ['type'], ['type']),
    ('B-PER O O', 'O O B-PER', ['missed'], ['spurious']),
    # two predictions, one gold: the larger overlap
    ('B-PER I-PER I-PER I-PER', 'B-PER B-PER I-PER I-PER', ['boundary'], ['spurious', 'boundary']),
    # the own type before the larger overlap
    ('B-ORG I-ORG I-ORG B-LOC', 'O B-LOC I-LOC I-LOC', ['missed', 'boundary'], ['boundary']),
    # equal in all: the first
    ('B-PER I-PER B-PER I-PER', 'B-PER I-PER I-PER I-PER', ['boundary', 'missed'], ['boundary']),
    # a person and a place become one person
    ('B-PER I-PER B-LOC', 'B-PER I-PER I-PER', ['boundary', 'missed'], ['boundary'])]

@pytest.mark.parametrize('gold, said, there, found', CASES)
def test_kinds_by_hand(gold, said, there, found):
    t = entity_table([gold.split()], [said.split()], [['w']*len(gold.split())])
    assert t[t.side == 'gold'].kind.tolist() == there and t[t.side == 'predicted'].kind.tolist() == found

@settings(max_examples=100, deadline=None)
@given(texts, texts)
def test_slices_part_the_entities(text, source):
    words, gold, said = text
    t = sliced(entity_table(gold, said, words), words, source[:2])
    s = slices(t, len(words), draws=20)
    n = t.side.value_counts()
    assert set(s['slice']) == (set(SLICES) if len(t) else set())
    for _, part in s.groupby('slice'):
        assert part.support.sum() == n.get('gold', 0) and part.predicted.sum() == n.get('predicted', 0)
    back = [x[::-1] for x in text]
    other = slices(sliced(entity_table(back[1], back[2], back[0]), back[0], source[:2]), len(words), draws=20)
    exact = ['support', 'predicted', 'precision', 'recall', 'f1']
    # the order of sentences does not matter
    a, b = (x.set_index(['slice', 'value'])[exact].sort_index() for x in (s, other))
    assert a.index.equals(b.index) and np.allclose(a.to_numpy(float), b.to_numpy(float), equal_nan=True)

@settings(max_examples=50, deadline=None)
@given(texts, st.randoms())
def test_a_slice_is_its_entities_alone(text, rng):
    "Two runs; support, F1 and interval of each type and length from counts by a plain loop"
    words, gold, said = text
    other = [rng.sample(s, len(s)) for s in said]
    t = sliced(pd.concat([entity_table(gold, x, words).assign(run=i) for i, x in enumerate((said, other))]), words)
    got = slices(t, len(words), draws=50).set_index(['slice', 'value'])
    size = lambda x: ('1', '2', '3')[x[1]-x[0]-1] if x[1]-x[0] < 4 else '4+'
    for name, of in (('type', lambda x: x[2]), ('entity length', size)):
        for v in {of(x) for tags in (gold, said, other) for s in tags for x in spans(s)} & set(got.loc[name].index if len(got) else ()):
            counts = np.array([[(len((g := {x for x in spans(a) if of(x) == v}) & (p := {x for x in spans(b) if of(x) == v})), len(p),
                len(g)) for a, b in zip(gold, tags)] for tags in (said, other)])
            row = got.loc[name, v]
            assert row.support == counts[0, :, 2].sum() and row.predicted == counts[..., 1].sum()/2
            assert np.isclose(row.f1, np.mean([f1_of(*c.T) for c in counts])) and (row.low, row.high) == interval(counts, draws=50)

@settings(max_examples=150, deadline=None)
@given(texts, texts)
def test_relations_by_a_plain_loop(text, source):
    t = entity_table(text[1], text[2], text[0])
    words, tags = [[w.casefold() for w in s] for s in source[0]], source[1]
    got = relations(t, *source[:2])
    for r, seen, share in zip(t.itertuples(), got.seen, got.consistency):
        form = r.text.casefold().split(' ')
        times = sum(s[i:i+len(form)] == form for s in words for i in range(len(s)))
        kinds = [k for s, u in zip(words, tags) for b, e, k in spans(u) if s[b:e] == form]
        assert seen == ('same type' if r.type in kinds else 'other type' if kinds else 'unseen')
        assert np.isnan(share) if not times else np.isclose(share, kinds.count(r.type)/times)

def test_empty_tables_and_wrong_names():
    t = sliced(entity_table([['O']], [['O']], [['na']]), [['na']], ([['Ana']], [['B-PER']]))
    assert slices(t, 1).empty and error_kinds(t).empty
    assert not len(reliability_curve([], [])) and np.isnan(calibration_error(reliability_curve([], [])))
    t = sliced(entity_table([['B-PER']], [['O']], [['Ana']]), [['Ana']])
    with pytest.raises(MtmtError, match="Did you mean 'script'"): slices(t, 1, by=['scripts'])
    with pytest.raises(MtmtError, match='sentences: 0'): slices(t, 0)
    with pytest.raises(MtmtError, match="Did you mean 'minimum'"): confidence(t, [['O']], ['O'], np.ones((1, 1)), 'minimun')
    with pytest.raises(MtmtError, match='probabilities of 2 words'): confidence(t, [['O']], ['O'], np.ones((2, 1)))
    with pytest.raises(MtmtError, match='width, mass'): reliability_curve([.5], [1], cut='with')
    assert script('Дар es') == 'mixed' and script('!?') == 'none' and script('ß') == 'Latin'

sure = st.lists(st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 10).map(lambda k: k/10)), st.booleans()), min_size=1, max_size=60)

@settings(max_examples=200, deadline=None)
@given(sure, st.integers(1, 15))
def test_calibration_error_by_a_plain_loop(pairs, bins):
    "Guo et al. 2017: bin m holds confidences over (m-1)/M up to m/M; the first holds 0 too"
    c, right = zip(*pairs)
    steps, total = np.linspace(0, 1, bins+1), 0.
    for m, (low, high) in enumerate(zip(steps, steps[1:])):
        inside = [(x, y) for x, y in pairs if (low < x or not m) and x <= high]
        if inside: total += len(inside)/len(pairs)*abs(np.mean([y for _, y in inside])-np.mean([x for x, _ in inside]))
    assert np.isclose(calibration_error(reliability_curve(c, right, bins)), total)
    mass = reliability_curve(c, right, bins, 'mass')
    assert mass['count'].sum() == len(pairs) and len(mass) <= bins
    assert ((mass.low <= mass.precision+1e-9) & (mass.precision <= mass.high+1e-9)).all()
    assert ((mass.begin <= mass.confidence+1e-9) & (mass.confidence <= mass.end+1e-9)).all()

def test_calibration_error_in_figures():
    b = reliability_curve([.1, .2, .25, .85, .95, 1.], [0, 1, 0, 1, 1, 0], 2)
    assert b[['begin', 'end', 'count']].to_numpy().tolist() == [[0, .5, 3], [.5, 1, 3]]
    assert np.isclose(calibration_error(b), .5*(1/3-.55/3)+.5*(2.8/3-2/3))
    assert np.isclose(calibration_error(reliability_curve([1., 1., 1., 1.], [1, 1, 1, 0])), .25)
    assert calibration_error(reliability_curve([1., 0.], [1, 0])) == 0
    # equal confidences stay together
    assert reliability_curve([.2, .2, .2, .9], [1, 0, 1, 1], 2, 'mass')['count'].tolist() == [3, 1]

@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 99))
def test_confidence_by_a_plain_loop(text, seed):
    words, gold, said = text
    names = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
    p = np.random.default_rng(seed).dirichlet(np.ones(5), sum(map(len, words)))
    t = entity_table(gold, said, words)
    mine = t[t.side == 'predicted']
    for how, of in (('product', np.prod), ('minimum', np.min), ('mean', np.mean)):
        rows = iter(p)
        own = [[next(rows)[names.index(x)] for x in s] for s in said]
        found = confidence(t, said, names, p, how)
        assert np.allclose(found, [of(own[r.sentence][r.begin:r.end]) for r in mine.itertuples()])
        assert found.index.equals(mine.index)

def test_intervals_are_each_groups_own():
    rng = np.random.default_rng(0)
    groups = [rng.integers(0, 4, (*s, 3000, 3)) for s in ((), (2,), (5,))]
    assert [tuple(x) for x in intervals(groups, draws=1500).tolist()] == [interval(g, draws=1500) for g in groups]

@pytest.mark.parametrize('how', ['argmax', 'bio'])
def test_a_runs_probabilities_are_its_predictions(small_files, tmp_path, tiny_encoder, how):
    out = run(recipe(small_files, tmp_path, tiny_encoder, 'tsl-multi', learning_rate=3e-3, decode=how, rounds=2))
    folder = tmp_path/out['run']
    words, systems = read_predictions(folder)
    tags, p = read_probabilities(folder)
    assert list(p) == list(out['systems']) == ['recognizer', 'recognizer-en', 'recognizer-de', 'round1', 'student']
    assert all(x.dtype == np.float32 and np.allclose(x.sum(1), 1, atol=1e-5) for x in p.values())
    assert {n: decode(x, [len(w) for w in words], tags, how) for n, x in p.items()} == {n: systems[n] for n in p}
    assert not recompute(folder)
    sure = confidence_of_run(folder, how='minimum')
    assert len(sure) == sum(len(spans(s)) for s in systems['student'])
    assert sure.right.sum() == entity_counts(systems['gold'], systems['student'])[:, 0].sum()
    changed = {n: np.ascontiguousarray(x[::-1]) if n == 'round1' else x for n, x in p.items()}
    (folder/'probabilities.safetensors').write_bytes(save(changed, dict(tags=json.dumps(tags), systems=json.dumps(list(p)))))
    assert recompute(folder) == 'probabilities.safetensors is missing or was changed'
    record = read_record(folder)
    record['files']['probabilities.safetensors'] = file_hash(folder/'probabilities.safetensors')
    (folder/'run.json').write_text(json.dumps(sealed(record)))
    assert recompute(folder) == 'round1: its probabilities do not give its predictions'
    (folder/'probabilities.safetensors').write_bytes(b'short')
    with pytest.raises(MtmtError, match='probabilities.safetensors: the file was changed or cut off.*run its recipe again'):
        read_probabilities(folder)
    (folder/'run.json').unlink()                      # this one is spoilt: not among the runs that are computed again in the end

def test_slices_of_runs(small_files, tmp_path, tiny_encoder):
    folders = [tmp_path/run(recipe(small_files, tmp_path, tiny_encoder, 'tsl', learning_rate=3e-3, seed=s))['run'] for s in (0, 1)]
    table, board = slices_of_run(folders, data_dir=small_files)
    for i, f in enumerate(folders):
        f1 = json.loads((f/'run.json').read_text())['f1']
        one = slices_of_run(f, data_dir=small_files)[1].set_index(['slice', 'value'])
        assert np.isclose(one.f1['script', 'Latin'], 100*f1)
    mean = np.mean([100*json.loads((f/'run.json').read_text())['f1'] for f in folders])
    assert np.isclose(board.set_index('value').f1['Latin'], mean) and set(board['slice']) == set(SLICES)
    text = describe({'tsl': folders}, small_files)
    assert '| seen | same type |' in text and 'equal mass' in text
    sure = confidence_of_run(folders)
    curve = reliability_curve(sure.confidence, sure.right)
    for chart in (slice_chart({'tsl': board}), kind_chart({'tsl': table}), reliability_chart({'tsl': curve})):
        assert '<svg' in as_svg(chart).data
    with pytest.raises(MtmtError, match="no system 'studnet'.*Did you mean 'student'"): slices_of_run(folders[0], 'studnet', small_files)
    for f in folders: (f/'probabilities.safetensors').unlink()
    with pytest.raises(MtmtError, match='probabilities.safetensors: the file is missing'): confidence_of_run(folders)
    assert 'equal mass' not in describe({'tsl': folders}, small_files)
    assert recompute(folders[0]) == 'probabilities.safetensors is missing or was changed'
    (small_files/'en.train.conll').write_text((small_files/'en.train.conll').read_text().replace('Kano', 'Bergen'))
    with pytest.raises(MtmtError, match='train text of en is not what files-sw-tsl'): slices_of_run(folders, data_dir=small_files)
    for f in folders: (f/'run.json').unlink()         # these are spoilt: not among the runs that are computed again in the end

def test_another_system_has_slices_too(small_files, tmp_path):
    said = tmp_path/'said.conll'
    said.write_text((small_files/'sw.test.conll').read_text().replace('B-LOC', 'B-PER'))
    out = score_system(said, 'theirs', benchmark='files', data_dir=str(small_files), out_dir=str(tmp_path/'out'), target='sw')
    table, board = slices_of_run(tmp_path/'out'/out['run'], data_dir=small_files)
    assert set(board['slice']) == set(SLICES)-{'seen', 'label consistency'}
    by_value = board.set_index('value')
    assert by_value.recall['LOC'] == 0 and np.isnan(by_value.precision['LOC'])
    assert (table[table.side == 'gold'].kind == 'type').sum() == by_value.support['LOC']
