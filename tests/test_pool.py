"Several teachers as one: what must hold for any numbers, oracles in plain Python, and texts with known errors."
import math

import pytest
import torch
import torch.nn.functional as F

from transformers import AutoTokenizer, BertConfig, BertModel, set_seed

from mtmt.data import MtmtError
from mtmt.encoders import load_encoder
from mtmt.losses import calibrated, cosine, pair_cosine, similarity, similarity_loss
from mtmt.pool import (Pooling, columns_of, combined, dawid_skene, mix, pair_weights, pooled, pooled_similarity,
    reliability_weights, sentence_states, student_similarity)
from mtmt.teachers import Annotations
from mtmt.windows import windows

WEIGHTS = Pooling(teacher_weights='reliability')
POSTERIOR = Pooling(teacher_weights='reliability', reliability_use='posterior')

def random_predictions(seed, teachers=4, words=200, tags=5):
    "Predictions (K, N, C), mostly of tag 0"
    generator = torch.Generator().manual_seed(seed)
    z = 2*torch.randn(teachers, words, tags, generator=generator)
    z[..., 0] += 3
    return z.softmax(-1)

def text_with_errors(seed, right=(.9, .75, .6, .5), words=4000, entities=.15, together=.3, soft=.9):
    "Predictions (K, N, 5) of teachers that are right on these shares of the entity words, and the truth"
    generator = torch.Generator().manual_seed(seed)
    chance = lambda: torch.rand(words, generator=generator)
    kinds = torch.tensor([0., .35, .15, .35, .15])
    outside = torch.tensor([1-entities, 0, 0, 0, 0])
    truth = torch.multinomial(entities*kinds+outside, words, True, generator=generator)
    def wrong():
        other = torch.multinomial(kinds, words, True, generator=generator)
        return torch.where((truth > 0) & (chance() < .7), 0, other)
    common, fate, error, predictions = chance() < together, chance(), wrong(), []
    for share in right:
        luck = torch.where(common, fate, chance())
        fails = luck < torch.where(truth > 0, 1-share, .1-share/15)
        predictions.append(torch.where(fails, torch.where(common, error, wrong()), truth))
    return soft*F.one_hot(torch.stack(predictions), 5)+(1-soft)/5, truth

def entity_words_right(q, truth): return (q.argmax(-1) == truth)[truth > 0].float().mean().item()

TEXTS = {'plain': {}, 'independent errors': dict(together=0.), 'errors in common': dict(together=.6), 'soft': dict(soft=.6),
    'few entities': dict(entities=.08, right=(.8, .7, .65, .6)), 'three teachers': dict(right=(.8, .7, .65), together=.5),
    'six teachers': dict(right=(.85, .8, .75, .7, .6, .5), together=.6), 'short': dict(words=800)}

@pytest.mark.parametrize('text', TEXTS)
def test_the_posterior_finds_as_many_entity_words_as_the_weights(text):
    found = []
    for seed in range(3):
        p, truth = text_with_errors(seed, **TEXTS[text])
        found.append([entity_words_right(combined(p, how)[0], truth) for how in (WEIGHTS, POSTERIOR)])
    weights, posterior = torch.tensor(found).mean(0).tolist()
    assert posterior > weights-.02

def test_the_fit_finds_the_shares_and_the_confusions():
    "Hard answers, independent errors: the model of Dawid and Skene is true, so its tables come out"
    p, truth = text_with_errors(0, right=(.9, .8, .7, .8), words=20000, together=0., soft=1.)
    found = dawid_skene(p)
    share = torch.bincount(truth, minlength=5)/len(truth)
    said = F.one_hot(p.argmax(-1), 5).float()
    actual = torch.einsum('nc,knd->kcd', F.one_hot(truth, 5).float(), said)/torch.bincount(truth, minlength=5)[:, None]
    assert (found.prior-share).abs().max() < .02 and (found.confusion-actual).abs().max() < .1
    assert torch.allclose(found.prior.sum(), torch.tensor(1.)) and torch.allclose(found.confusion.sum(-1), torch.ones(4, 5))

@pytest.mark.parametrize('rho', [0., .3, 1.])
def test_belief_is_prior_and_evidence_tempered_alike(rho):
    "The formula in plain Python; no exponent changes a best tag"
    p = random_predictions(0, words=30)
    found, sharp = dawid_skene(p, rho), dawid_skene(p, 1.)
    for i in range(30):
        log = [(rho or 1/4)*(math.log(found.prior[c])+sum(p[k, i, d].item()*math.log(found.confusion[k, c, d])
            for k in range(4) for d in range(5))) for c in range(5)]
        belief = torch.tensor([math.exp(x) for x in log])
        assert torch.allclose(found.belief[i], belief/belief.sum(), atol=1e-5)
    assert torch.equal(found.belief.argmax(-1), sharp.belief.argmax(-1))

@pytest.mark.parametrize('how', [Pooling(), WEIGHTS, POSTERIOR, *(Pooling(teacher_weights=w) for w in ('entropy', 'agreement'))],
    ids=lambda h: f'{h.teacher_weights}-{h.reliability_use}')
def test_order_and_names_have_no_effect(how):
    "Permuted teachers: the same. Permuted entity tags: the same, permuted (tag 0 stays O)"
    p = random_predictions(1)
    one, w = combined(p, how)
    teachers, tags = torch.tensor([2, 0, 3, 1]), torch.tensor([0, 3, 1, 4, 2])
    assert torch.allclose(one.sum(-1), torch.ones(200), atol=1e-5) and torch.allclose(w.sum(0), torch.ones(200), atol=1e-5)
    assert torch.allclose(combined(p[teachers], how)[0], one, atol=1e-5)
    assert torch.allclose(combined(p[..., tags], how)[0], one[:, tags], atol=1e-5)

@pytest.mark.parametrize('how', [WEIGHTS, POSTERIOR], ids=['weights', 'posterior'])
def test_one_teacher_is_believed(how):
    p = random_predictions(2, teachers=1)
    assert torch.equal(combined(p, how)[0], p[0])

def test_weights_by_reliability_are_as_they_were():
    "Figures from before the posterior was mended: the weights have a fit of their own"
    w = reliability_weights(text_with_errors(3, words=500)[0])
    assert torch.allclose(w.mean(1), torch.tensor([.242387, .246351, .237815, .273447]), atol=1e-5)

def test_pooled_similarity_in_plain_python():
    generator = torch.Generator().manual_seed(4)
    vectors, w = torch.randn(6, 3, 8, generator=generator), torch.rand(6, 3, generator=generator)
    scale, pairs = torch.tensor([[2., .5], [4., -1.], [1., 0.]]), torch.tensor([[0, 1], [2, 5], [3, 4]])
    for (i, j), s in zip(pairs.tolist(), pooled_similarity(vectors, w, pairs, 'half', scale)):
        total = norm = 0.
        for k in range(3):
            x, y = vectors[i, k].tolist(), vectors[j, k].tolist()
            c = sum(a*b for a, b in zip(x, y))/math.sqrt(sum(a*a for a in x)*sum(b*b for b in y))
            slope, shift = scale[k].tolist()
            weight = math.sqrt(w[i, k]*w[j, k])
            total += weight/(1+math.exp(-(slope*math.log((1+c)/(1-c))+shift)))
            norm += weight
        assert abs(total/norm-s.item()) < 1e-5

@pytest.mark.parametrize('kind', ['sigmoid', 'half'])
@pytest.mark.parametrize('weighted', [False, True])
def test_equal_cosines_are_equal_similarities(kind, weighted):
    "A student whose cosines are the evaluators' has r = s, whatever the calibration and the weights"
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(7, 1, 16, generator=generator)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 6], [5, 0]])
    w = torch.rand(7, 3, generator=generator) if weighted else None
    for scale in (None, torch.tensor([[6., -2.], [3., 1.], [.5, 0.]])):
        r = student_similarity(pair_cosine(h[:, 0], pairs), w, pairs, kind, scale)
        s = pooled_similarity(h.expand(7, 3, 16), w, pairs, kind, scale)
        assert torch.allclose(r, s, atol=1e-6)

def test_without_calibration_the_map_alone_counts():
    cos, pairs = torch.tensor([.3, -.7]), torch.tensor([[0, 1], [1, 2]])
    for kind in ('sigmoid', 'half'):
        assert torch.equal(student_similarity(cos, torch.rand(3, 2), pairs, kind), similarity(cos, kind))

def test_a_steep_calibration_leaves_the_loss_finite():
    cos = torch.tensor([-1., -.5, .5, 1.], requires_grad=True)
    r = calibrated(similarity(cos, 'half')[:, None], torch.tensor([[40., 3.]]))[:, 0]
    loss = similarity_loss(r, r.detach().flip(0)).sum()
    loss.backward()
    assert loss.isfinite() and cos.grad.isfinite().all() and r.min() > 0 and r.max() < 1

def test_calibration_of_one_evaluator_has_either_shape():
    s = torch.tensor([.3, .6])
    assert torch.equal(calibrated(s, torch.tensor([2., 1.])), calibrated(s[:, None], torch.tensor([[2., 1.]]))[:, 0])

def test_weights_of_a_pair_lie_between_those_of_its_words():
    generator = torch.Generator().manual_seed(6)
    w = torch.rand(3, 20, generator=generator).softmax(0)
    pairs = torch.randint(20, (50, 2), generator=generator)
    both = pair_weights(w, pairs)
    ratio = lambda x: x[0]/x[1]
    ends = torch.stack([ratio(w[:, pairs[:, 0]]), ratio(w[:, pairs[:, 1]])])
    assert torch.allclose(both.sum(0), torch.ones(50).double()) and torch.equal(both, pair_weights(w, pairs.flip(1)))
    assert (ratio(both) >= ends.min(0).values-1e-6).all() and (ratio(both) <= ends.max(0).values+1e-6).all()

def test_mix_does_not_depend_on_the_scale_of_weights():
    p, w = random_predictions(7), torch.rand(4, 200, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(mix(p, w), mix(p, 3*w), atol=1e-6)

def test_columns_go_by_name_in_any_order():
    generator = torch.Generator().manual_seed(8)
    tags = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
    p = random_predictions(8)[0]
    for _ in range(5):
        order = torch.randperm(5, generator=generator)
        assert torch.equal(columns_of(p[:, order], [tags[i] for i in order], tags), p)
    with pytest.raises(MtmtError, match='recognizer of de never predicts B-LOC, I-LOC'):
        columns_of(p[:, :3], tags[:3], tags, who='recognizer of de')

def test_cosine_is_that_of_the_formula():
    a, b = torch.tensor([[3., 4.]]), torch.tensor([[4., 3.]])
    assert torch.allclose(cosine(a, b), torch.tensor([24/25]))

# Vectors of sentences

def test_the_pooled_state_is_the_models_own(tiny_encoder, tmp_path):
    "Each sentence alone in the model, and the mean of both windows of the one that is too long"
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    set_seed(0)
    own = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64))
    own.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_encoder(str(tmp_path), pooler=True)
    short, long = ['Amina', 'left', 'Kano'], ['Kofi']*9
    pieces = lambda words: torch.tensor([[2, *tokenizer.convert_tokens_to_ids(words), 3]])
    for kind in ('pooled', 'first'):
        read = lambda words: (lambda x: x.pooler_output if kind == 'pooled' else x.last_hidden_state[:, 0])(own.eval()(pieces(words)))[0]
        found = sentence_states(model, [long, short], tokenizer, 9, kind)
        assert torch.allclose(found[1], read(short), atol=1e-6) and not torch.equal(found[0], found[1])
    assert torch.allclose(sentence_states(model, [long], tokenizer, 64, 'pooled')[0], own(pieces(long)).pooler_output[0], atol=1e-6)
    parts = windows([long], tokenizer, 8)
    each = [own(torch.from_numpy(part['input_ids']).long()[None]).last_hidden_state[0, 0] for part in parts]
    assert len(each) > 1 and torch.allclose(sentence_states(model, [long], tokenizer, 8)[0], sum(each)/len(each), atol=1e-6)

def test_one_teacher_takes_two_bytes_a_word():
    "A million sentences have ten million words: no number of eight bytes for each, not even for a moment"
    p = torch.rand(400_000, 3).half()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        said = pooled([Annotations(p)])
    assert max(event.self_cpu_memory_usage for event in profile.events()) <= 2*len(p)
    assert torch.equal(said.votes.long(), p.argmax(-1))
