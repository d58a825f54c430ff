"Encoders are read rightly or refused: every weight from the checkpoint, no foreign code, scores as the model's own."
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForTokenClassification, AutoTokenizer
from transformers import PreTrainedTokenizerFast, set_seed

from conftest import ROOT
from mtmt.data import Schema
from mtmt.encoders import EncoderError, LayerHeads, WordEncoder, encoder_fingerprint, freeze, frozen_layers
from mtmt.encoders import frozen_states, load_config, load_encoder, load_tagger, load_tokenizer, weights_hash
from mtmt.windows import windows

SCHEMA = Schema(('PER', 'LOC'))
SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
SPECIAL = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
KINDS = {
    'bert': SMALL, 'roberta': SMALL | dict(pad_token_id=0), 'xlm-roberta': SMALL | dict(pad_token_id=0), 'electra': SMALL,
    'deberta-v2': SMALL | dict(relative_attention=True, pos_att_type=['c2p', 'p2c']),
    'distilbert': dict(dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=64),
    'modernbert': SMALL | SPECIAL | dict(cls_token_id=2, sep_token_id=3),
    'eurobert': SMALL | SPECIAL | dict(num_key_value_heads=2),
    'canine': SMALL | dict(num_hash_buckets=64, local_transformer_stride=8)}

def config_of(kind, vocabulary):
    "A tiny configuration"
    return AutoConfig.for_model(kind, **KINDS[kind], **({} if kind == 'canine' else dict(vocab_size=vocabulary)))

@pytest.fixture(scope='module')
def folders(tiny_encoder, tmp_path_factory):
    "Folder of a random pre-trained encoder of each kind, with the head it was pre-trained with where it has one"
    place, tokenizer = tmp_path_factory.mktemp('kinds'), AutoTokenizer.from_pretrained(tiny_encoder)
    for kind in KINDS:
        set_seed(0)
        config = config_of(kind, len(tokenizer))
        model = AutoModel.from_config(config) if kind == 'canine' else AutoModelForMaskedLM.from_config(config)
        # a fresh head has a bias of zero: a reading that leaves it out would look right
        for name, weight in model.named_parameters(): nn.init.normal_(weight, std=.2)
        model.save_pretrained(place/kind)
        (transformers.CanineTokenizer() if kind == 'canine' else tokenizer).save_pretrained(place/kind)
    return place

@pytest.fixture
def copy(tiny_encoder, tmp_path):
    "A copy of the tiny encoder to spoil"
    return Path(shutil.copytree(tiny_encoder, tmp_path/'copy'))

def edit_json(path, **changes): path.write_text(json.dumps(json.loads(path.read_text()) | changes))

def edit_weights(folder, change):
    "Change the dictionary of weights of a folder"
    weights = load_file(folder/'model.safetensors')
    change(weights)
    save_file(weights, folder/'model.safetensors', metadata=dict(format='pt'))

# ---- scores

@pytest.mark.parametrize('kind', KINDS)
def test_scores_of_words_are_the_models_own(folders, kind):
    "With padding and several words in a batch"
    tagger, tokenizer = load_tagger(str(folders/kind), SCHEMA), load_tokenizer(str(folders/kind))
    two = windows([['Amina', 'aliona', 'Kano'], ['Juma', 'katika', 'Nairobi', 'na', 'Lagos']], tokenizer)
    length = max(len(w['input_ids']) for w in two)
    ids = torch.tensor([w['input_ids'].tolist()+[tokenizer.pad_token_id]*(length-len(w['input_ids'])) for w in two])
    mask = torch.tensor([[1]*len(w['input_ids'])+[0]*(length-len(w['input_ids'])) for w in two])
    place = torch.tensor([i*length+f for i, w in enumerate(two) for f in w['first']])
    with torch.no_grad():
        h, scores = WordEncoder(tagger).eval()(ids, mask, place)
        own = tagger.eval()(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[place]
    assert len(h) == 8 and (scores-own).abs().max() < 1e-5 and own.std() > .01
    assert torch.allclose(tagger.classifier(h), scores)

@pytest.mark.parametrize('kind', [k for k in KINDS if k not in ('modernbert', 'canine')])
def test_one_linear_layer_after_dropout_is_read_as_it_always_was(folders, kind):
    "To the bit: the last layer at the words, dropout, the linear layer"
    tagger, tokenizer = load_tagger(str(folders/kind), SCHEMA), load_tokenizer(str(folders/kind))
    ids, place = tokenizer('Amina aliona Kano', return_tensors='pt')['input_ids'], torch.tensor([1, 3])
    reader = WordEncoder(tagger).train()
    set_seed(1)
    h, scores = reader(ids, torch.ones_like(ids), place)
    set_seed(1)
    plain = reader.dropout(tagger.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.flatten(0, 1)[place])
    assert torch.equal(h, plain) and torch.equal(scores, tagger.classifier(plain))

class OddConfig(transformers.BertConfig):
    "A model whose own code does more than its modules show"
    model_type = 'odd-bert'

class OddTagger(transformers.BertForTokenClassification):
    config_class = OddConfig
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits.sin()
        return out

class TwoLayerTagger(transformers.BertForTokenClassification):
    "A model whose head is no linear layer"
    config_class = OddConfig
    def __init__(self, config):
        super().__init__(config)
        self.classifier = nn.Sequential(nn.Linear(config.hidden_size, 8), nn.Linear(8, config.num_labels))

def test_a_model_that_would_be_read_wrongly_is_refused(copy):
    AutoConfig.register('odd-bert', OddConfig, exist_ok=True)
    AutoModelForTokenClassification.register(OddConfig, OddTagger, exist_ok=True)
    edit_json(copy/'config.json', model_type='odd-bert')
    with pytest.raises(EncoderError, match=r'OddTagger scores a sentence otherwise .*use an encoder of the BERT'):
        load_tagger(str(copy), SCHEMA)
    with pytest.raises(EncoderError, match='the head is Sequential, not a linear layer'):
        WordEncoder(TwoLayerTagger(OddConfig(**SMALL, vocab_size=60)))

# ---- every weight from the checkpoint

@pytest.mark.parametrize('kind', KINDS)
def test_an_encoder_is_the_same_at_each_load(folders, kind):
    assert weights_hash(load_encoder(str(folders/kind))) == weights_hash(load_encoder(str(folders/kind)))

@pytest.mark.parametrize('load', [load_encoder, lambda name: load_tagger(name, SCHEMA)], ids=['encoder', 'tagger'])
def test_missing_weights_are_an_error(copy, load):
    edit_weights(copy, lambda w: [w.pop(k) for k in list(w) if k.startswith('encoder.layer.1.')])
    with pytest.raises(EncoderError, match=r'16 weights are missing and would be random: .*encoder\.layer\.1\.'): load(str(copy))

@pytest.mark.parametrize('load', [load_encoder, lambda name: load_tagger(name, SCHEMA)], ids=['encoder', 'tagger'])
@pytest.mark.parametrize('change, message', [(dict(num_hidden_layers=99), 'are missing and would be random'),
    (dict(num_hidden_layers=1), 'have no place in the model'), (dict(intermediate_size=32), 'have another shape')])
def test_a_configuration_of_another_model_is_an_error(copy, load, change, message):
    edit_json(copy/'config.json', **change)
    with pytest.raises(EncoderError, match=message): load(str(copy))

def test_weights_of_heads_may_be_left_out_and_others_not(copy):
    plain = weights_hash(load_encoder(str(copy)))
    edit_weights(copy, lambda w: w.update({'cls.predictions.bias': torch.ones(3), 'pooler.dense.weight': torch.ones(3, 3),
        'bert.pooler.dense.bias': torch.ones(3), 'classifier.weight': torch.ones(7, 32), 'classifier.bias': torch.ones(7)}))
    assert weights_hash(load_encoder(str(copy))) == plain
    assert load_tagger(str(copy), SCHEMA).classifier.weight.shape == (5, 32)      # of another size: drawn anew
    edit_weights(copy, lambda w: w.update({'encoder.layer.1.attention.self.query.lora_A': torch.ones(3)}))
    with pytest.raises(EncoderError, match=r'no place in the model: .*lora_A'): load_encoder(str(copy))

def test_modernbert_without_its_pretrained_head_is_refused(folders, tmp_path):
    copy = Path(shutil.copytree(folders/'modernbert', tmp_path/'copy'))
    edit_weights(copy, lambda w: [w.pop(k) for k in list(w) if k.startswith('head.')])
    assert load_encoder(str(copy)) is not None
    with pytest.raises(EncoderError, match=r'missing and would be random: head\.'): load_tagger(str(copy), SCHEMA)

def test_damaged_weights_are_an_encoder_error(copy):
    whole = (copy/'model.safetensors').read_bytes()
    for damaged in (whole[:1000], whole[:-100], b''):
        (copy/'model.safetensors').write_bytes(damaged)
        with pytest.raises(EncoderError, match='could not be loaded'): load_encoder(str(copy))

# ---- no foreign code, no pickles

def test_code_of_a_model_is_never_run(tmp_path, tiny_encoder):
    "Not even for somebody who answers every question with yes"
    copy, trace = Path(shutil.copytree(tiny_encoder, tmp_path/'copy')), tmp_path/'it ran'
    edit_json(copy/'config.json', model_type='its-own',
        auto_map={name: f'own.{name}' for name in ('AutoConfig', 'AutoModel', 'AutoModelForTokenClassification')})
    edit_json(copy/'tokenizer_config.json', tokenizer_class='Own', auto_map=dict(AutoTokenizer=['own.Own', None]))
    (copy/'own.py').write_text(f'open({str(trace)!r}, "w")\n')
    for call in ('load_encoder(x)', 'load_tagger(x, Schema(("PER",)))', 'load_tokenizer(x)', 'load_config(x)'):
        code = (f'import sys\nfrom mtmt.data import Schema\nfrom mtmt.encoders import *\nx = sys.argv[1]\n'
            f'try: {call}\nexcept EncoderError as e: print(e)')
        done = subprocess.run([sys.executable, '-c', code, str(copy)], input='y\n'*9, capture_output=True, text=True, cwd=ROOT,
            env=dict(os.environ, HF_MODULES_CACHE=str(tmp_path/'modules')))
        assert done.returncode == 0, done.stderr[-1000:]
        assert 'this kit runs none' in done.stdout and not trace.exists()

def test_a_pickle_is_refused_and_the_error_says_how_to_convert_it(copy):
    plain = weights_hash(load_encoder(str(copy)))
    torch.save(load_file(copy/'model.safetensors'), copy/'pytorch_model.bin')
    (copy/'model.safetensors').unlink()
    for load in (load_encoder, encoder_fingerprint, lambda name: load_tagger(name, SCHEMA)):
        with pytest.raises(EncoderError, match=r'only safetensors are read.*convert it once: python -c "') as e: load(str(copy))
    code = str(e.value).split('python -c "')[1].rstrip('"')
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    assert weights_hash(load_encoder(str(copy))) == plain

def test_a_folder_without_weights_is_named(copy):
    (copy/'model.safetensors').unlink()
    with pytest.raises(EncoderError, match='no weights'): load_encoder(str(copy))

# ---- fingerprint

def first_weight(folder):
    def change(weights):
        name = sorted(weights)[0]
        weights[name].view(-1)[0] += 1e-3
    edit_weights(folder, change)

def shuffle_vocabulary(folder):
    state = json.loads((folder/'tokenizer.json').read_text())
    words = state['model']['vocab']
    words['Kano'], words['Lagos'] = words['Lagos'], words['Kano']
    (folder/'tokenizer.json').write_text(json.dumps(state))

@pytest.mark.parametrize('file, change', [('model.safetensors', first_weight), ('tokenizer.json', shuffle_vocabulary),
    ('config.json', lambda f: edit_json(f/'config.json', num_attention_heads=1)),
    ('tokenizer_config.json', lambda f: edit_json(f/'tokenizer_config.json', do_lower_case=True)),
    ('vocab.txt', lambda f: (f/'vocab.txt').write_text('a'))])
def test_a_fingerprint_knows_every_file_that_decides(tiny_encoder, copy, file, change):
    before = encoder_fingerprint(tiny_encoder)
    assert encoder_fingerprint(str(copy)) == before
    (copy/'README.md').write_text('a note decides nothing')
    assert encoder_fingerprint(str(copy)) == before
    change(copy)
    after = encoder_fingerprint(str(copy))
    assert {f for f in after if after[f] != before.get(f)} == {file}

def test_a_fingerprint_of_sharded_weights(tiny_encoder, tmp_path):
    load_encoder(tiny_encoder).save_pretrained(tmp_path, max_shard_size='30KB')
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob('model-*.safetensors'))
    before = encoder_fingerprint(str(tmp_path))
    assert len(shards) > 1 and {s.name for s in shards} < set(before) and 'model.safetensors.index.json' in before
    weights = load_file(shards[-1])
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, shards[-1], metadata=dict(format='pt'))
    after = encoder_fingerprint(str(tmp_path))
    assert {f for f in after if after[f] != before[f]} == {shards[-1].name}
    shards[0].unlink()
    with pytest.raises(EncoderError, match=shards[0].name): encoder_fingerprint(str(tmp_path))

def test_a_fingerprint_of_a_cached_hub_model_is_that_of_its_folder(tiny_encoder, tmp_path):
    "In a process of its own, without a network"
    place = tmp_path/'hub'/'models--someone--tiny'
    shutil.copytree(tiny_encoder, place/'snapshots'/('0'*40))
    (place/'refs').mkdir()
    (place/'refs'/'main').write_text('0'*40)
    code = ('import sys\nfrom mtmt.encoders import *\nassert encoder_fingerprint("someone/tiny") == encoder_fingerprint(sys.argv[1])\n'
        'assert weights_hash(load_encoder("someone/tiny")) == weights_hash(load_encoder(sys.argv[1]))\n'
        'try: encoder_fingerprint("someone/else")\nexcept EncoderError as e: print(e)')
    done = subprocess.run([sys.executable, '-c', code, tiny_encoder], capture_output=True, text=True, cwd=ROOT,
        env=dict(os.environ, HF_HUB_CACHE=str(tmp_path/'hub'), HF_HUB_OFFLINE='1'))
    assert done.returncode == 0, done.stderr[-1000:]
    assert 'someone/else: config.json or model.safetensors was not found' in done.stdout

# ---- what stays as it is

EMBEDDINGS = {'eurobert': 'embed_tokens', 'canine': 'char_embeddings'}
STACK = {'distilbert': 'transformer.layer', 'modernbert': 'layers', 'eurobert': 'layers'}

@pytest.mark.parametrize('kind', KINDS)
def test_freezing_finds_embeddings_and_layers(folders, kind):
    tagger = load_tagger(str(folders/kind), SCHEMA)
    freeze(tagger, layers=2)
    stack = STACK.get(kind, 'encoder.layer')
    kept = (EMBEDDINGS.get(kind, 'embeddings')+'.', f'{stack}.0.', f'{stack}.1.')
    for name, weight in tagger.base_model.named_parameters(): assert weight.requires_grad is not name.startswith(kept), name
    assert tagger.classifier.weight.requires_grad

NOT_KEPT = {'electra', 'deberta-v2', 'canine'}

@pytest.mark.parametrize('kind', KINDS)
def test_the_states_of_frozen_layers_stand_for_them(folders, kind):
    """In training mode, with padding; the rest learns the same. Not where something trained has a part in them (DeBERTa's
    positions, ELECTRA's projection), nor where layers hand on tuples (CANINE)"""
    set_seed(1)
    model = WordEncoder(load_tagger(str(folders/kind), SCHEMA))
    freeze(model.model, layers=2)
    model.train().dropout.p = 0.
    for module in model.model.modules():
        if isinstance(module, nn.Dropout): module.p = 0. if module.training else .5
        for name in ('attention_dropout', 'attn_dropout'):
            if isinstance(getattr(module, name, None), float): setattr(module, name, 0.)
    ids, mask, place = torch.randint(5, 40, (2, 6)), torch.tensor([[1]*6, [1]*4+[0]*2]), torch.tensor([1, 3, 7, 9])
    states = frozen_states(model, ids, mask)
    assert (states is None) == (kind in NOT_KEPT)
    learned = []
    for given in (None, states):
        model.zero_grad()
        h, scores = model(ids, mask, place, given)
        scores.square().sum().backward()
        learned.append([scores, *(w.grad for w in model.parameters() if w.grad is not None)])
    for one, other in zip(*learned, strict=True): torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

def test_nothing_is_kept_of_layers_that_change(tiny_encoder):
    "Trained layers or embeddings, or padding that is attended to"
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long)
    for mask_used, embeddings, layers in ((True, True, 0), (True, False, 1), (False, True, 1)):
        model = WordEncoder(load_tagger(tiny_encoder, SCHEMA), mask_used)
        freeze(model.model, embeddings, layers)
        assert frozen_states(model, ids, mask) is None
    freeze(model.model, True, 1)
    model.use_mask = True
    assert frozen_states(model, ids, mask).shape == (1, 3, model.model.config.hidden_size)

def test_freezing_says_where_it_cannot(tiny_encoder):
    shared = AutoModelForTokenClassification.from_config(AutoConfig.for_model('albert', **SMALL, vocab_size=60, embedding_size=8))
    freeze(shared)
    assert frozen_layers(shared) == []
    with pytest.raises(EncoderError, match='no single stack of 3 layers.*freeze_layers=0'): freeze(shared, layers=1)
    bare = load_encoder(tiny_encoder)
    del bare.embeddings
    with pytest.raises(EncoderError, match='no embedding layer.*freeze_embeddings=False'): freeze(bare)

# ---- byte-level tokenizers

def byte_level(folder, shape, tokenizer_class):
    "A byte-level tokenizer in which `Kano` and ` Kano` are different pieces, of three shapes, saved into a folder"
    pieces = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *sorted(pre_tokenizers.ByteLevel.alphabet()), 'Ka', 'no', 'Kano', 'ĠKano']
    merges = [('K', 'a'), ('n', 'o'), ('Ka', 'no'), ('Ġ', 'Kano')]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    one = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=shape == 'whole')
    tokenizer.pre_tokenizer = one if shape == 'whole' else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r' ?\p{L}+| ?[^\s\p{L}]+'), 'isolated'), one])
    tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token='<unk>', pad_token='<pad>', bos_token='<s>', eos_token='</s>',
        cls_token='<s>', sep_token='</s>', mask_token='<mask>').save_pretrained(folder)
    edit_json(folder/'tokenizer_config.json', tokenizer_class=tokenizer_class)
    return len(pieces)

@pytest.mark.parametrize('shape, tokenizer_class', [('whole', 'TokenizersBackend'), ('split', 'TokenizersBackend'),
    ('whole', 'RobertaTokenizer'), ('whole', 'GPT2Tokenizer')])
def test_byte_level_tokenizers_know_where_a_word_begins(tmp_path, shape, tokenizer_class):
    "Words given one by one are cut as in running text; a saved tokenizer still knows, and loads the same"
    size = byte_level(tmp_path, shape, tokenizer_class)
    set_seed(0)
    transformers.RobertaModel(AutoConfig.for_model('roberta', **SMALL, vocab_size=size)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    def pieces(tokenizer, *words):
        return tokenizer.convert_ids_to_tokens(windows([list(words)], tokenizer)[0]['input_ids'][1:-1])
    assert pieces(tokenizer, 'Kano', 'Kano') == ['ĠKano', 'ĠKano'] == tokenizer.tokenize('Kano Kano')
    assert pieces(tokenizer, 'Kano-Kano') == ['ĠKano', '-', 'Kano']
    tokenizer.save_pretrained(tmp_path/'student')
    for name in ('config.json', 'model.safetensors'): shutil.copy(tmp_path/name, tmp_path/'student')
    for again in (load_tokenizer(str(tmp_path/'student')), AutoTokenizer.from_pretrained(tmp_path/'student')):
        assert pieces(again, 'Kano', 'Kano-Kano') == ['ĠKano', 'ĠKano', '-', 'Kano']

def test_other_tokenizers_stay_as_they_are(tiny_encoder):
    ours, plain = load_tokenizer(tiny_encoder), AutoTokenizer.from_pretrained(tiny_encoder)
    assert ours.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()

# ---- names

def test_a_folder_is_checked_before_it_is_read(copy):
    for name in ('tokenizer.json', 'config.json'):
        (copy/name).rename(copy/'aside')
        with pytest.raises(EncoderError, match=f'has no {name}'): load_config(str(copy))
        (copy/'aside').rename(copy/name)

@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'modernbert'])
def test_heads_read_the_hidden_states_below_the_last(folders, kind):
    "Three layers: two heads at most, on hidden states 1 and 2 of the model itself; a frozen layer is refused"
    encoder = WordEncoder(load_tagger(str(folders/kind), SCHEMA)).eval()
    heads = LayerHeads(encoder, 8).eval()
    pieces, place = torch.tensor([[2, 9, 12, 14, 3]]), torch.tensor([1, 3])
    with torch.no_grad():
        encoder(pieces, torch.ones_like(pieces), place)
        found = heads()
        states = encoder.model.base_model(input_ids=pieces, output_hidden_states=True).hidden_states
        expected = [head(states[k][0, place]) for k, head in enumerate(heads.heads, 1)]
    assert len(found) == 2 and torch.allclose(found, torch.stack(expected), atol=1e-5)
    freeze(encoder.model, layers=1)
    with pytest.raises(EncoderError, match='lower freeze_layers or layer_heads'): LayerHeads(encoder, 8)
    assert len(LayerHeads(encoder, 1).heads) == 1
