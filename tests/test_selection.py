"Which words and sentences count: figures by hand, on tensors and on a tiny encoder."
import json, math

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mtmt.benchmarks import load_labelled
from mtmt.data import Schema
from mtmt.encoders import WordEncoder, load_tagger
from mtmt.selection import LanguageDiscriminator, adversarial_losses, against_languages, word_states
from mtmt.teachers import Recognizer, load_recognizer, train_recognizer
from mtmt.training import TrainSettings, WordTrainer

SCHEMA = Schema(('PER', 'LOC'))

@pytest.mark.parametrize('max_length', [64, 8])
def test_a_word_is_the_mean_of_its_pieces_in_the_last_layers(tiny_encoder, max_length):
    "Two sentences in one batch, and one that is cut into windows; each word against the model's own states"
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    recognizer = Recognizer(WordEncoder(load_tagger(tiny_encoder, SCHEMA)).eval(), tokenizer, max_length)
    body = AutoModel.from_pretrained(tiny_encoder).eval()
    tokens = [['Amina', 'xyz', 'Kano', 'ab'], ['Kofi', 'q']]
    found = word_states(recognizer, tokens, 2).split([4, 2])
    if max_length == 8:
        assert torch.allclose(found[1], word_states(recognizer, tokens[1:], 2), atol=1e-5) and found[0].isfinite().all()
        return
    for words, rows in zip(tokens, found):
        said = tokenizer(words, is_split_into_words=True, return_tensors='pt')
        with torch.no_grad(): states = body(**said, output_hidden_states=True).hidden_states[-2:]
        pieces, whose = (states[0]+states[1])[0]/2, torch.tensor([-1 if k is None else k for k in said.word_ids()])
        expected = torch.stack([pieces[whose == k].mean(0) for k in range(len(words))])
        assert torch.allclose(rows, expected, atol=1e-5)
    assert len(tokenizer.tokenize('xyz')) == 3

# An encoder against its language discriminator

def test_both_losses_in_plain_python():
    "Each gradient reaches one side alone"
    torch.manual_seed(0)
    judge, h, of_source = LanguageDiscriminator(3, 4), torch.randn(5, 3, requires_grad=True), torch.tensor([1., 1., 0., 0., 0.])
    its_own, against = adversarial_losses(h, of_source, judge)
    score = judge(h).squeeze(-1).tolist()
    bce = lambda y: sum(math.log(1+math.exp(-x if t else x)) for x, t in zip(score, y))/5
    assert abs(its_own.item()-bce([1, 1, 0, 0, 0])) < 1e-6 and abs(against.item()-bce([0, 0, 1, 1, 1])) < 1e-6
    weights = list(judge.parameters())
    assert torch.autograd.grad(its_own, [h, *weights], retain_graph=True, allow_unused=True)[0] is None
    to_words, *to_judge = torch.autograd.grad(against, [h, *weights], allow_unused=True)
    assert to_words.abs().max() > 0 and to_judge == [None]*4

def test_the_discriminator_has_its_own_rate_and_stays_behind(tiny_encoder, small_files, tmp_path, monkeypatch):
    rates, real = [], WordTrainer.create_optimizer
    def noted(self, *args):
        optimizer = real(self, *args)
        rates.extend((group['lr'], len(group['params'])) for group in optimizer.param_groups)
        return optimizer
    monkeypatch.setattr(WordTrainer, 'create_optimizer', noted)
    source = load_labelled('files', 'en', 'train', SCHEMA, str(small_files))[0]
    target = load_labelled('files', 'sw', 'train', SCHEMA, str(small_files))[0]['tokens']
    settings = TrainSettings(epochs=2, learning_rate=1e-3, max_length=32, device='cpu', precision='fp32')
    train_recognizer(source, tmp_path/'t', tiny_encoder, settings, lesson=against_languages(target, .5))
    assert {lr for lr, count in rates if count} == {1e-3, 1e-2, LanguageDiscriminator.learning_rate}
    assert sum(count for lr, count in rates if lr == LanguageDiscriminator.learning_rate) == 4
    assert load_recognizer(tmp_path/'t').tags == SCHEMA.tags
    log = [entry for entry in json.loads((tmp_path/'t'/'mtmt.json').read_text())['log'] if 'discriminator' in entry]
    assert log[-1]['discriminator'] != log[0]['discriminator']
