"The student's loss and its training: prototypes that are missing, maps that follow each other, dev sets of several sources."
import json, math

import pytest
import torch
import torch.nn.functional as F

from mtmt.benchmarks import load_labelled
from mtmt.data import MtmtError, Schema, tag_names
from mtmt.eval import scores
from mtmt.losses import agreement_for, gamma, type_probabilities
from mtmt.prototypes import (Prototypes, batch_prototypes, classes_without_prototype, moved, prototype_probabilities, responsibilities,
    self_training_step)
from mtmt.student import Distillation, distil, student_objective
from mtmt.teachers import Annotations, flat
from mtmt.training import TrainSettings

SCHEMA = Schema(('PER', 'LOC'))
TYPE_OF = torch.from_numpy(SCHEMA.type_of)

TSL = Distillation(tasks=('recognition',), weights='none', ner_reduction='mean')

def made(seed, words=24, width=8, evaluators=1):
    "A batch by hand: student vectors and scores, teacher probabilities that are confident, evaluators' vectors"
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randint(5, (words,), generator=generator)
    p = (8*F.one_hot(tags, 5)+torch.randn(words, 5, generator=generator)).softmax(-1)
    h, scores = torch.randn(words, width, generator=generator), torch.randn(words, 5, generator=generator)
    return h, scores, dict(probabilities=p, vectors=torch.randn(words, evaluators, width, generator=generator))

def parts_of(how, h, scores, batch, **more): return student_objective(how, SCHEMA, 0, **more)(h, scores, batch, 0)

# Prototypes

def as_it_was(memory, h, q, p, how, progress):
    "Self-training where every class has a prototype, as it was computed before some could be missing"
    new, seen = batch_prototypes(h, responsibilities(p, TYPE_OF, how.prototype_threshold), how.prototype_least)
    memory = moved(memory, new, seen, how.prototype_momentum)
    pi = (F.normalize(h, dim=-1)@memory.T/how.prototype_temperature).softmax(-1)
    opinion = pi[:, TYPE_OF]*(p/type_probabilities(p, TYPE_OF)[:, TYPE_OF].clamp_min(1e-9))
    mix = how.prototype_mix*min(2*progress, 1)
    agree = TYPE_OF[opinion.argmax(-1)] == TYPE_OF[p.argmax(-1)]
    return (torch.where(agree, 1., how.prototype_doubt)*-(((1-mix)*p+mix*opinion)*q.clamp_min(1e-9).log()).sum(-1)).mean()

@pytest.mark.parametrize('seed', range(5))
def test_with_all_classes_nothing_changed(seed):
    h, z, batch = made(seed)
    memory, q = torch.zeros(3, 8), z.softmax(-1)
    expected = as_it_was(memory, h, q, batch['probabilities'], Prototypes(), .7)
    loss = self_training_step(memory, h, q, batch['probabilities'], TYPE_OF, Prototypes(), .7)
    assert torch.equal(loss, expected) and classes_without_prototype(memory) == 0

def test_classes_with_a_prototype_use_it_where_another_class_has_none():
    "Nobody is LOC: PER and O still have a second opinion, and the loss is not plain cross-entropy"
    h, z, batch = made(0)
    p = (8*F.one_hot(torch.arange(24)%3, 5)+.1*torch.randn(24, 5, generator=torch.Generator().manual_seed(1))).softmax(-1)
    memory, q = torch.zeros(3, 8), z.softmax(-1)
    loss = self_training_step(memory, h, q, p, TYPE_OF, Prototypes(), 1.)
    plain = -(p*q.log()).sum(-1).mean()
    assert classes_without_prototype(memory) == 1 and abs(loss-plain) > .05
    pi = (F.normalize(h, dim=-1)@memory[:2].T/.1).softmax(-1)      # over the two classes that have one
    opinion = prototype_probabilities(h, memory, p, TYPE_OF)
    assert torch.allclose(type_probabilities(opinion, TYPE_OF)[:, :2], pi, atol=1e-5) and (opinion[:, 3:] == 0).all()

def test_words_of_a_class_without_prototype_keep_their_teacher():
    h, _, batch = made(2)
    p, memory = batch['probabilities'], F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    kind = TYPE_OF[p.argmax(-1)]
    for missing in range(3):
        left = memory*(torch.arange(3) != missing)[:, None]
        opinion = prototype_probabilities(h, left, p, TYPE_OF)
        assert torch.equal(opinion[kind == missing], p[kind == missing]) and opinion.isfinite().all()
        assert not torch.allclose(opinion[kind != missing], p[kind != missing])
        assert torch.allclose(opinion.sum(-1), torch.ones(24), atol=1e-4)
    assert torch.equal(prototype_probabilities(h, torch.zeros(3, 8), p, TYPE_OF), p)

def test_missing_prototypes_are_in_the_log(tiny_encoder, corpora, tmp_path):
    "The teacher never predicts LOC"
    target, annotations, _ = corpora
    rows = F.one_hot(torch.arange(len(annotations.probabilities))%3, 5).half()
    how = Distillation(tasks=('recognition',), weights='none', self_training=.5)
    distil(target, Annotations(rows), SCHEMA, tmp_path/'s', how, tiny_encoder, SETTINGS)
    log = json.loads((tmp_path/'s'/'mtmt.json').read_text())['log']
    assert log[-1]['classes_without_prototype'] == 1 and 'self_training' in log[-1]

# Maps

@pytest.mark.parametrize('kind, map_', [('sigmoid', 'sigmoid'), ('half', 'cosine')])
def test_the_map_inside_gamma_follows_the_similarity(kind, map_):
    how = dict(similarity_map=kind)
    auto, explicit, other = (parts_of(Distillation(**how | m), *made(4))['loss'] for m in ({}, dict(agreement_map=map_),
        dict(agreement_map='cosine' if map_ == 'sigmoid' else 'sigmoid')))
    assert torch.equal(auto, explicit) and not torch.allclose(auto, other)
    assert agreement_for('auto', kind) == map_

def test_full_agreement_counts_fully_under_half():
    "Two words that both teachers find different: their pair has weight 1"
    p = torch.eye(2)
    assert torch.allclose(gamma(p[:1], p[1:], torch.tensor([0.]), agreement_for('auto', 'half')), torch.ones(1))

def test_gamma_refuses_a_map_that_was_not_resolved():
    with pytest.raises(MtmtError, match='auto'): gamma(torch.eye(2), torch.eye(2), torch.ones(2), 'auto')

@pytest.mark.parametrize('kind', ['sigmoid', 'half'])
def test_a_calibrated_student_can_reach_its_evaluators(kind):
    "Its vectors are theirs: nothing is left to learn, and nothing pushes it"
    h, z, batch = made(5, evaluators=1)
    h = batch['vectors'][:, 0].clone().requires_grad_()
    batch |= dict(vectors=batch['vectors'].expand(-1, 2, -1), weights=torch.rand(24, 2, generator=torch.Generator().manual_seed(6)))
    how, scale = Distillation(similarity_map=kind, weights='none'), torch.tensor([[5., -1.], [3., .5]])
    parts_of(how, h, z, batch, calibration=scale)['similarity'].backward()
    assert h.grad.abs().max() < 1e-6
    off = (h.detach()+.3*torch.randn(h.shape, generator=torch.Generator().manual_seed(7))).requires_grad_()
    parts_of(how, off, z, batch, calibration=scale)['similarity'].backward()
    assert off.grad.abs().max() > 1e-4

# Words that all teachers tag alike

@pytest.mark.parametrize('option', [dict(vote_weight=.7), dict(vote_weight=.7, vote_by_confidence=True), dict(hard_label_usage='replace'),
    dict(hard_label_usage='weight', hard_label_weight=.3)])
def test_votes_in_plain_python(option):
    "UniTrans and TSL as they are written: four words of three teachers, who agree on the first two"
    how = Distillation(tasks=('recognition',), weights='none', ner_reduction='mean', **option)
    h, z, batch = made(8, words=4)
    p, q, votes = batch['probabilities'].tolist(), z.softmax(-1).tolist(), [3, 0, -1, -1]
    distance = lambda a, b: sum((x-y)**2 for x, y in zip(a, b))/5
    sure = [[float(c == v) for c in range(5)] if v >= 0 else row for v, row in zip(votes, p)]
    target = sure if how.hard_label_usage == 'replace' else p
    expected = sum(map(distance, q, target))/4
    said = [p[i][votes[i]] if how.vote_by_confidence else 1. for i in (0, 1)]
    expected += how.vote_weight*sum(-said[i]*math.log(q[i][votes[i]]) for i in (0, 1))/2
    if how.hard_label_usage == 'weight': expected += .3*sum(distance(q[i], sure[i]) for i in (0, 1))/2
    parts = parts_of(how, h, z, batch | dict(votes=torch.tensor(votes)))
    assert abs(parts['loss'].item()-expected) < 1e-6
    nobody = parts_of(how, h, z, batch | dict(votes=torch.full((4,), -1)))
    assert torch.equal(nobody['loss'], parts_of(TSL, h, z, batch)['loss'])

# Layers below the last

class Heads:
    "Heads whose scores are given"
    def __init__(self, scores, omega): self.scores, self.mean = scores, lambda losses: (omega.softmax(0)*losses).sum()
    def __call__(self): return self.scores

def test_layers_in_plain_python():
    "MSD as corrected: two layers against the teacher's, with learned weights; no label in sight"
    h, z, batch = made(9, words=3)
    generator = torch.Generator().manual_seed(10)
    scores, p = torch.randn(2, 3, 5, generator=generator), torch.randn(3, 2, 5, generator=generator).softmax(-1)
    omega = torch.tensor([.3, -.5])
    heads = type('Encoder', (), dict(layer_heads=Heads(scores, omega)))
    how = Distillation(tasks=('recognition',), weights='none', ner_reduction='mean', layer_heads=2)
    parts = student_objective(how, SCHEMA, 0, encoder=heads)(h, z, batch | dict(layers=p), 0)
    each = [sum((scores[l, i].softmax(-1)[c]-p[i, l, c]).item()**2 for i in range(3) for c in range(5))/15 for l in (0, 1)]
    weight = [math.exp(x)/(math.exp(.3)+math.exp(-.5)) for x in (.3, -.5)]
    expected = parts_of(TSL, h, z, batch)['loss'].item()+.1*sum(w*x for w, x in zip(weight, each))
    assert abs(parts['loss'].item()-expected) < 1e-6

# Training

SETTINGS = TrainSettings(epochs=1, learning_rate=1e-3, max_length=32, device='cpu', precision='fp32')

@pytest.fixture
def corpora(small_files):
    "Raw Swahili with annotations made from its tags, and the dev sets of two sources"
    load = lambda lang, split: load_labelled('files', lang, split, SCHEMA, str(small_files))[0]
    labelled = load('sw', 'train')
    p = (6*F.one_hot(flat(labelled['ner_tags']), 5).float()).softmax(-1)
    return labelled.remove_columns('ner_tags'), Annotations(p.half()), {lang: load(lang, 'dev') for lang in ('en', 'de')}

def test_the_epoch_is_chosen_by_the_mean_over_the_sources(tiny_encoder, corpora, tmp_path):
    "Two dev sets of different size count the same"
    target, annotations, devs = corpora
    devs |= dict(de=devs['de'].select(range(3)))
    student = distil(target, annotations, SCHEMA, tmp_path/'s', TSL, tiny_encoder, SETTINGS, devs)
    log = json.loads((tmp_path/'s'/'mtmt.json').read_text())['log']
    each = [scores(tag_names(d), student.tag(d['tokens']))['f1'] for d in devs.values()]
    assert [e['eval_f1'] for e in log if 'eval_f1' in e] == [pytest.approx(sum(each)/2)] and each[0] != each[1]

@pytest.mark.parametrize('devs', [None, {}])
def test_without_dev_sets_the_last_epoch_is_kept(tiny_encoder, corpora, tmp_path, devs):
    distil(*corpora[:2], SCHEMA, tmp_path/'s', TSL, tiny_encoder, SETTINGS, devs)
    assert not any('eval_f1' in e for e in json.loads((tmp_path/'s'/'mtmt.json').read_text())['log'])

def test_pairs_of_the_corpus_need_two_classes(tiny_encoder, corpora, tmp_path):
    target, annotations, _ = corpora
    n = len(annotations.probabilities)
    everything_o = Annotations(F.one_hot(torch.zeros(n, dtype=torch.long), 5).half(), torch.randn(n, 8).half())
    with pytest.raises(MtmtError, match='one tag for all words'):
        distil(target, everything_o, SCHEMA, tmp_path/'s', Distillation(pairs_from='corpus'), tiny_encoder, SETTINGS)

def test_a_student_can_go_on_from_another(tiny_encoder, corpora, tmp_path):
    "Without a learning rate it stays the one that it started from"
    still = TrainSettings(epochs=1, learning_rate=0., max_length=32, device='cpu', precision='fp32')
    first = distil(*corpora[:2], SCHEMA, tmp_path/'a', TSL, tiny_encoder, SETTINGS)
    again = distil(*corpora[:2], SCHEMA, tmp_path/'b', TSL, tiny_encoder, still, start=first)
    a, b = (model.encoder.state_dict() for model in (first, again))
    assert all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('change, message', [
    (dict(how=Distillation()), 'needs an evaluator'), (dict(how=TSL, gold=torch.zeros(3)), 'exactly where pair_balance="gold"'),
    (dict(how=Distillation(tasks=('recognition',), pair_balance='gold')), 'exactly where pair_balance="gold"'),
    (dict(how=Distillation(tasks=('recognition',), vote_weight=1.)), 'need the votes of several teachers')])
def test_what_cannot_work_is_refused(tiny_encoder, corpora, tmp_path, change, message):
    with pytest.raises(MtmtError, match=message):
        distil(*corpora[:2], SCHEMA, tmp_path/'s', encoder=tiny_encoder, settings=SETTINGS, **change)
    assert not (tmp_path/'s').exists()
