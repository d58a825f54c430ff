"A vocabulary fitted to text: the text is cut as before, and its vectors are the same."

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoTokenizer, CanineTokenizer, PreTrainedTokenizerFast, set_seed

from mtmt.corpus import CORPUS_LANGUAGES, corpus_split
from mtmt.encoders import EncoderError, load_encoder, load_tokenizer
from mtmt.vocabulary import count_pieces, fit_vocabulary
from mtmt.windows import word_pieces

LINES = [' '.join(words) for lang in CORPUS_LANGUAGES for words in corpus_split(lang, 'test')['tokens'][:40]]
SPECIAL = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']

def unigram(tokenizer): tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
def wordpiece(tokenizer): tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
def bytes_(tokenizer): tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
def bpe(tokenizer): tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()

KINDS = dict(unigram=(models.Unigram(), trainers.UnigramTrainer(vocab_size=900, special_tokens=SPECIAL, unk_token='<unk>'), unigram),
    wordpiece=(models.WordPiece(unk_token='<unk>'), trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL), wordpiece),
    bytes=(models.BPE(), trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()), bytes_),
    bpe=(models.BPE(unk_token='<unk>'), trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL), bpe))

@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    "A random encoder for each kind of tokenizer, trained on the corpus"
    place = tmp_path_factory.mktemp('kinds')
    for kind, (model, trainer, prepare) in KINDS.items():
        backend = Tokenizer(model)
        prepare(backend)
        backend.normalizer = normalizers.NFKC()
        backend.train_from_iterator(LINES, trainer)
        backend.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)])
        if kind == 'wordpiece': backend.post_processor = processors.BertProcessing(('</s>', 2), ('<s>', 0))
        if kind == 'bytes': backend.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
        PreTrainedTokenizerFast(tokenizer_object=backend, bos_token='<s>', eos_token='</s>', unk_token='<unk>', pad_token='<pad>',
            cls_token='<s>', sep_token='</s>', mask_token='<mask>').save_pretrained(place/kind)
        set_seed(0)
        config = AutoConfig.for_model('xlm-roberta', hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=514, vocab_size=backend.get_vocab_size(), pad_token_id=1, bos_token_id=0, eos_token_id=2)
        AutoModel.from_config(config).save_pretrained(place/kind)
    return place

@pytest.mark.parametrize('kind', KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(0, len(LINES)-1), min_size=1, max_size=12))
def test_text_it_was_fitted_to_is_cut_as_before_and_has_the_same_vectors(encoders, tmp_path_factory, kind, numbers):
    lines, folder = [LINES[number] for number in numbers], tmp_path_factory.mktemp('fitted')
    sizes = fit_vocabulary(str(encoders/kind), lines, 1, folder)
    before, after = load_tokenizer(str(encoders/kind)), load_tokenizer(str(folder))
    model, smaller = load_encoder(str(encoders/kind)).eval(), load_encoder(str(folder)).eval()
    assert sizes == dict(before=len(before), after=len(after)) and smaller.config.vocab_size == len(after) <= len(before)
    assert sorted(after.get_vocab().values()) == list(range(len(after)))
    for line in lines:
        assert after.tokenize(line) == before.tokenize(line)
        words = line.split()
        cut = [{w: t.convert_ids_to_tokens(ids) for w, ids in word_pieces(words, t).items()} for t in (before, after)]
        assert cut[0] == cut[1]
    with torch.no_grad():
        one, two = (m(**t(lines[:1], return_tensors='pt', truncation=True, max_length=64)).last_hidden_state
            for m, t in ((model, before), (smaller, after)))
    assert torch.equal(one, two)

@pytest.mark.parametrize('kind', KINDS)
def test_special_pieces_stay_what_they_are(encoders, tmp_path, kind):
    fit_vocabulary(str(encoders/kind), LINES[:1], 1, tmp_path)
    before, after = AutoTokenizer.from_pretrained(encoders/kind), AutoTokenizer.from_pretrained(tmp_path)
    assert after.pad_token_id == before.pad_token_id == 1
    assert [after.convert_ids_to_tokens(after('x')['input_ids'][place]) for place in (0, -1)] == ['<s>', '</s>']
    for name in ('unk_token', 'mask_token', 'cls_token', 'sep_token'): assert getattr(after, name) == getattr(before, name)
    assert after.convert_ids_to_tokens(after.mask_token_id) == '<mask>'

@pytest.mark.parametrize('kind', KINDS)
def test_other_text_can_still_be_spelt(encoders, tmp_path, kind):
    fit_vocabulary(str(encoders/kind), LINES[:3], 1, tmp_path)
    before, after = load_tokenizer(str(encoders/kind)), load_tokenizer(str(tmp_path))
    for line in LINES:
        assert ('<unk>' in after.tokenize(line)) == ('<unk>' in before.tokenize(line))

def test_rare_pieces_go_with_a_higher_bound(encoders, tmp_path):
    sizes = [fit_vocabulary(str(encoders/'unigram'), LINES, least, tmp_path/str(least))['after'] for least in (1, 10, 10**6)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    counts = count_pieces(load_tokenizer(str(encoders/'unigram')), LINES)
    kept = load_tokenizer(str(tmp_path/'10')).get_vocab()
    names = load_tokenizer(str(encoders/'unigram')).convert_ids_to_tokens
    assert all(names(piece) in kept for piece, count in counts.items() if count >= 10)

def test_what_cannot_be_fitted_is_refused(encoders, tmp_path):
    with pytest.raises(EncoderError, match='least: 0'): fit_vocabulary(str(encoders/'unigram'), LINES, 0, tmp_path)
    CanineTokenizer().save_pretrained(tmp_path/'canine')
    config = AutoConfig.for_model('canine', hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_hash_buckets=64, local_transformer_stride=8)
    AutoModel.from_config(config).save_pretrained(tmp_path/'canine')
    with pytest.raises(EncoderError, match='a vocabulary can be fitted for Unigram, WordPiece, BPE'):
        fit_vocabulary(str(tmp_path/'canine'), LINES, 1, tmp_path/'out')
