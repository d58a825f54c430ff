"Which words and sentences count: figures by hand, on tensors and on a tiny encoder."
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mtmt.data import Schema
from mtmt.encoders import WordEncoder, load_tagger
from mtmt.selection import word_states
from mtmt.teachers import Recognizer

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
