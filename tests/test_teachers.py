"Teachers: damaged files are named, losses that are no numbers stop, threads and dev sets are what the settings say."
import json, shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, set_seed

from conftest import sentences
from test_encoders import KINDS, byte_level
from mtmt.data import MtmtError, Schema, dataset, sealed, tag_names
from mtmt.encoders import WordEncoder, encoder_fingerprint, file_hash, load_tagger, load_tokenizer, weights_hash
from mtmt.eval import scores
from mtmt.teachers import MODEL_OF_TASK, DamagedError, Recognizer, annotate, dev_scores, flat, load_evaluator, load_recognizer
from mtmt.teachers import pair_f1, read_about, train_evaluator, train_recognizer
from mtmt.training import TrainingError, TrainSettings, WordData, WordTrainer, computing, on_gpu, train, uses_gpu

SCHEMA = Schema(('LOC', 'PER'))
QUICK = TrainSettings(epochs=2, batch_size=8, learning_rate=3e-3, max_length=32, precision='fp32', device='cpu')

def corpus(lang, count, shift=0): return dataset(*zip(*sentences(lang, count, shift)), SCHEMA)

@pytest.fixture(scope='module')
def saved(tiny_encoder, tmp_path_factory):
    "Folders of a trained recognizer and a trained evaluator"
    place = tmp_path_factory.mktemp('saved')
    train_recognizer(corpus('en', 40), place/'recognizer', tiny_encoder, QUICK)
    train_evaluator(corpus('en', 40), place/'evaluator', tiny_encoder, QUICK)
    return place

@pytest.fixture
def copy(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'copy'))

LOAD = dict(recognizer=load_recognizer, evaluator=load_evaluator)

# ---- folders

def test_a_saved_folder_lists_every_file_of_it(saved):
    for name in LOAD:
        about = read_about(saved/name)
        assert about['task'] == name and name in MODEL_OF_TASK.values()
        assert about['files'] == {f.name: file_hash(f) for f in (saved/name).iterdir() if f.name != 'mtmt.json'}
        assert set(about['files']) == {'trained.safetensors'}

def test_frozen_weights_are_named_and_not_stored(tiny_encoder, tmp_path):
    model = train_recognizer(corpus('en', 8), tmp_path/'model', tiny_encoder, QUICK, freeze_layers=1)
    stored, about = load_file(tmp_path/'model'/'trained.safetensors'), read_about(tmp_path/'model')
    assert not any('embeddings' in name or 'layer.0.' in name for name in stored)
    assert set(stored) | set(about['frozen']) == {name for name, _ in model.encoder.model.named_parameters()}
    assert not set(stored) & set(about['frozen']) and all(weight.dtype == torch.float16 for weight in stored.values())
    assert about['encoder_files'] == encoder_fingerprint(tiny_encoder)

def test_the_saved_model_is_the_one_that_was_used(tiny_encoder, tmp_path):
    "Weights are rounded in memory as on the disk: reading it again changes no bit"
    words, model = [['Amina', 'saw', 'Kano']], train_recognizer(corpus('en', 8), tmp_path/'model', tiny_encoder, QUICK)
    assert torch.equal(load_recognizer(tmp_path/'model').probabilities(words), model.probabilities(words))

def test_the_encoder_may_move_but_not_change(tiny_encoder, tmp_path):
    here = Path(shutil.copytree(tiny_encoder, tmp_path/'here'))
    model = train_recognizer(corpus('en', 8), tmp_path/'model', str(here), QUICK)
    here.rename(tmp_path/'there')
    words = [['Amina', 'saw', 'Kano']]
    with pytest.raises(MtmtError, match='here: no such folder'): load_recognizer(tmp_path/'model')
    again = load_recognizer(tmp_path/'model', str(tmp_path/'there'))
    assert torch.equal(again.probabilities(words), model.probabilities(words))
    (tmp_path/'there'/'config.json').write_text((tmp_path/'there'/'config.json').read_text().replace('gelu', 'relu'))
    with pytest.raises(MtmtError, match='is not the same now'): load_recognizer(tmp_path/'model', str(tmp_path/'there'))

def remove(path): path.unlink()
def cut_off(path): path.write_bytes(path.read_bytes()[:-1])
def empty(path): path.write_bytes(b'')
def change_a_byte(path):
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)

@pytest.mark.parametrize('name', LOAD)
@pytest.mark.parametrize('spoil', [remove, cut_off, empty, change_a_byte], ids=lambda f: f.__name__)
def test_a_damaged_file_is_named(copy, name, spoil):
    for file in list(read_about(copy/name)['files']):
        whole = (copy/name/file).read_bytes()
        spoil(copy/name/file)
        what = 'is missing' if spoil is remove else 'was changed or cut off'
        for read in (LOAD[name], read_about):
            with pytest.raises(DamagedError, match=rf'{name}/{file}: the file {what}.* Delete the folder'): read(copy/name)
        (copy/name/file).write_bytes(whole)
    LOAD[name](copy/name)

@pytest.mark.parametrize('text', ['', '{"task": "recogn', '[]', '3', '{}', '{"attention_mask": true, "max_length": 32, "similarity_map": null}',
    '{"encoder": "x", "encoder_files": {}, "frozen": [], "tags": null, "attention_mask": true, "max_length": 32, "similarity_map": null, "files": 3}', b'\xff\xfe\x00'])
def test_broken_facts_are_named(copy, text):
    (copy/'recognizer'/'mtmt.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedError, match='recognizer/mtmt.json: it '): load_recognizer(copy/'recognizer')

def test_a_folder_of_somebody_else_is_no_model_of_ours(tiny_encoder):
    with pytest.raises(MtmtError, match='not a model saved by this kit'): load_recognizer(tiny_encoder)

def record_anew(folder):
    "Write the hashes of the files as they are now, as a version with a defect in saving would have"
    about = json.loads((folder/'mtmt.json').read_text())
    about['files'] = {f.name: file_hash(f) for f in folder.iterdir() if f.name != 'mtmt.json'}
    (folder/'mtmt.json').write_text(json.dumps(sealed(about)))

@pytest.mark.parametrize('name, change, message', [
    ('recognizer', lambda w: [w.pop(k) for k in list(w) if k.startswith('classifier')], 'are missing: classifier'),
    ('recognizer', lambda w: w.update({'bert.pooler.dense.bias': torch.ones(32)}), 'no place in the model: bert.pooler'),
    ('recognizer', lambda w: w.update({'classifier.bias': torch.ones(3)}), 'another shape: classifier.bias'),
    ('evaluator', lambda w: w.pop('encoder.layer.1.output.dense.bias'), 'are missing: encoder.layer.1'),
    ('evaluator', lambda w: w.update({'classifier.bias': torch.ones(3)}), 'no place in the model: classifier.bias')])
def test_a_saved_model_is_its_weights_no_more_and_no_fewer(copy, name, change, message):
    weights = load_file(copy/name/'trained.safetensors')
    change(weights)
    save_file(weights, copy/name/'trained.safetensors')
    record_anew(copy/name)
    with pytest.raises(MtmtError, match=message): LOAD[name](copy/name)

def test_a_model_of_one_kind_is_not_loaded_as_the_other(saved):
    with pytest.raises(MtmtError): load_recognizer(saved/'evaluator')
    with pytest.raises(MtmtError): load_evaluator(saved/'recognizer')

# ---- annotations

def test_damaged_annotations_are_named(saved, tmp_path):
    words, path = [['Amina', 'aliona', 'Kano']], tmp_path/'sw.safetensors'
    teachers = load_recognizer(saved/'recognizer'), load_evaluator(saved/'evaluator')
    # a copy: the tensors read from a file lie in its bytes, which are about to change
    whole = {name: rows.clone() for name, rows in vars(annotate(words, *teachers, path)).items() if rows is not None}
    raw = path.read_bytes()
    for damaged in (b'', raw[:20], raw[:-1], b'no tensors at all', b'\xff'*200):
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r'sw\.safetensors: the annotations were changed or cut off .*delete the file'):
            annotate(words, *teachers, path)
    path.write_bytes(raw)
    path.with_suffix('.sha256').unlink()
    with pytest.raises(DamagedError, match=r'sw\.safetensors: cannot be read .*sha256'): annotate(words, *teachers, path)
    path.unlink()
    again = annotate(words, *teachers, path)
    assert torch.equal(again.probabilities, whole['probabilities']) and torch.equal(again.vectors, whole['vectors'])

def test_annotations_in_half_the_precision_are_nearly_the_same(saved, tmp_path):
    words = corpus('en', 40)['tokens']
    teachers = load_recognizer(saved/'recognizer'), load_evaluator(saved/'evaluator')
    whole, half = (annotate(words, *teachers, tmp_path/f'{bf16}.safetensors', bf16) for bf16 in (False, True))
    for name in ('probabilities', 'vectors'):
        one, other = getattr(whole, name).float(), getattr(half, name).float()
        assert not torch.equal(one, other) and (one-other).abs().max() < .02*one.abs().max()

@pytest.mark.skipif(not uses_gpu(), reason='no GPU here')
def test_annotations_of_a_gpu_are_those_of_the_cpu(saved, tmp_path):
    words = corpus('en', 40)['tokens']
    teachers = load_recognizer(saved/'recognizer'), load_evaluator(saved/'evaluator')
    cpu = annotate(words, *teachers, tmp_path/'cpu.safetensors')
    with on_gpu(*(teacher.encoder for teacher in teachers)): gpu = annotate(words, *teachers, tmp_path/'gpu.safetensors')
    assert all(not next(teacher.encoder.parameters()).is_cuda for teacher in teachers)
    for name in ('probabilities', 'vectors'):
        assert torch.allclose(getattr(cpu, name).float(), getattr(gpu, name).float(), atol=2e-3)

# ---- losses

def learn(encoder, folder, objective, settings=QUICK, score=None):
    "Train a fresh tagger with a loss"
    set_seed(0)
    text = corpus('en', 24)
    reader = WordEncoder(load_tagger(encoder, SCHEMA))
    words = WordData(text['tokens'], load_tokenizer(encoder), 32, labels=flat(text['ner_tags']))
    train(reader, words, objective, settings, folder, score)
    return reader

def cross_entropy(h, scores, batch, step): return dict(loss=torch.nn.functional.cross_entropy(scores, batch['labels']))

@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
def test_a_loss_that_is_no_number_stops_training(tiny_encoder, tmp_path, value):
    def objective(h, scores, batch, step):
        loss = cross_entropy(h, scores, batch, step)['loss']
        return dict(loss=loss*float(value) if step == 4 else loss, recognition=loss)
    with pytest.raises(TrainingError, match=rf'step 5 of 6: the loss is not a finite number \(loss {value}, recognition \d.*'
        r'Lower learning_rate \(now 0\.003\).*precision="fp32"'): learn(tiny_encoder, tmp_path/'c', objective)

@pytest.mark.parametrize('score', [None, lambda: dict(f1=.5)], ids=['last', 'best'])
def test_weights_that_are_no_numbers_are_never_kept(tiny_encoder, tmp_path, score, monkeypatch):
    "The last loss is a number, its gradient is not; the best epoch would be the first one"
    monkeypatch.setattr('mtmt.training._WORTH_WRITING', 0)
    def objective(h, scores, batch, step):
        loss = cross_entropy(h, scores, batch, step)['loss']
        return dict(loss=loss+(scores*0).sum().abs().sqrt() if step == 5 else loss)
    with pytest.raises(TrainingError, match='after step 6: .* weights are not finite numbers'):
        learn(tiny_encoder, tmp_path/'c', objective, score=score)
    assert [f.name for f in (tmp_path/'c').iterdir()] == ['checkpoint-3']

@pytest.mark.parametrize('seconds, steps', [(60, []), (0, [3, 6])])
def test_an_epoch_of_seconds_leaves_no_checkpoint(tiny_encoder, tmp_path, monkeypatch, seconds, steps):
    "And the last one none in any case: the model itself is written next"
    monkeypatch.setattr('mtmt.training._WORTH_WRITING', seconds)
    three, written, real = replace(QUICK, epochs=3), [], WordTrainer._save_checkpoint
    monkeypatch.setattr(WordTrainer, '_save_checkpoint', lambda self, *a: (written.append(self.state.global_step), real(self, *a)))
    learn(tiny_encoder, tmp_path/'c', cross_entropy, three)
    assert written == steps
    written.clear()
    learn(tiny_encoder, tmp_path/'d', cross_entropy, three, lambda: dict(f1=.5))
    assert written == [3, 6, 9]

def test_a_checkpoint_of_another_model_is_refused(tiny_encoder, tmp_path, monkeypatch):
    "A weight in training that a checkpoint lacks, or one more, would go on from half a model"
    monkeypatch.setattr('mtmt.training._WORTH_WRITING', 0)
    def objective(h, scores, batch, step):
        if step == 4: raise KeyboardInterrupt
        return dict(loss=cross_entropy(h, scores, batch, step)['loss'])
    with pytest.raises(KeyboardInterrupt): learn(tiny_encoder, tmp_path/'c', objective)
    file = tmp_path/'c'/'checkpoint-3'/'model.safetensors'
    weights = load_file(file)
    first = min(weights)
    save_file({f'{name}.other' if name == first else name: weight for name, weight in weights.items()}, file)
    with pytest.raises(TrainingError, match=rf'a checkpoint of another model: 2 weights differ in name \({first}, ...\); remove .*c'):
        learn(tiny_encoder, tmp_path/'c', cross_entropy)

@pytest.mark.parametrize('most', [1e-4, .1, .5, 1e4])
def test_gradients_are_clipped_as_torch_clips_them(tiny_encoder, tmp_path, most):
    seen = []
    class Seen(WordTrainer):
        def _clip_grad_norm(self, model):
            weights = {name: weight for name, weight in model.named_parameters() if weight.grad is not None}
            other = [torch.nn.Parameter(weight) for weight in weights.values()]
            for copied, weight in zip(other, weights.values()): copied.grad = weight.grad.clone()
            norms = torch.nn.utils.clip_grad_norm_(other, most), super()._clip_grad_norm(model)
            # a norm summed in another order has other last digits
            for copied, weight in zip(other, weights.values()): torch.testing.assert_close(weight.grad, copied.grad)
            seen.append([norm.item() for norm in norms])
            return norms[1]
    text, reader = corpus('en', 24), WordEncoder(load_tagger(tiny_encoder, SCHEMA))
    words = WordData(text['tokens'], load_tokenizer(tiny_encoder), 32, labels=flat(text['ner_tags']))
    settings = replace(QUICK, max_grad_norm=most)
    Seen(reader, words, cross_entropy, settings.arguments(tmp_path/'c', False, len(words))).train()
    assert len(seen) == 6 and all(one == pytest.approx(other) for one, other in seen)

@pytest.mark.parametrize('make', [train_recognizer, train_evaluator])
def test_a_learning_rate_beyond_reason_leaves_no_model(tiny_encoder, tmp_path, make):
    with pytest.raises(TrainingError, match='Lower learning_rate'):
        make(corpus('en', 40), tmp_path/'model', tiny_encoder, replace(QUICK, learning_rate=1e30, max_grad_norm=0.))
    assert not (tmp_path/'model').exists()

# ---- threads

def test_threads_are_a_setting(tiny_encoder, tmp_path):
    "Training sees the setting, whatever the process had before; the weights do not depend on that, and it comes back"
    seen, weights = [], []
    def objective(h, scores, batch, step):
        seen.append(torch.get_num_threads())
        return cross_entropy(h, scores, batch, step)
    before = torch.get_num_threads()
    try:
        for outside in (1, 3):
            torch.set_num_threads(outside)
            weights.append(weights_hash(learn(tiny_encoder, tmp_path/str(outside), objective)))
            assert torch.get_num_threads() == outside
        assert set(seen) == {1} and weights[0] == weights[1]
        learn(tiny_encoder, tmp_path/'two', objective, replace(QUICK, threads=2))
        assert seen[-1] == 2
    finally: torch.set_num_threads(before)
    assert TrainSettings().threads == 1

def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        with computing(before+1):
            assert torch.get_num_threads() == before+1
            raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(MtmtError, match='threads: 0'):
        with computing(0): pass

# ---- dev sets

def test_each_source_counts_the_same_whatever_its_size(tiny_encoder, tmp_path):
    devs = dict(en=corpus('en', 40, 3), de=corpus('de', 5, 50))
    model = train_recognizer(corpus('en', 40), tmp_path/'model', tiny_encoder, replace(QUICK, learning_rate=1.3e-3), dev=devs)
    own = {lang: scores(tag_names(dev), model.tag(dev['tokens'])) for lang, dev in devs.items()}
    found = dev_scores(model, devs)
    assert own['en']['f1'] != own['de']['f1']
    assert found == dict(f1=(own['en']['f1']+own['de']['f1'])/2,
        strict_f1=(own['en']['strict']['f1']+own['de']['strict']['f1'])/2,
        f1_en=own['en']['f1'], strict_f1_en=own['en']['strict']['f1'], f1_de=own['de']['f1'], strict_f1_de=own['de']['strict']['f1'])
    logged = [e for e in read_about(tmp_path/'model')['log'] if 'eval_f1' in e]
    assert len(logged) == 2 and all(e['eval_f1'] == (e['eval_f1_en']+e['eval_f1_de'])/2 for e in logged)
    best = max(logged, key=lambda e: e['eval_f1'])
    assert best['eval_f1'] == pytest.approx(found['f1'])

def test_one_source_is_scored_as_before(tiny_encoder):
    set_seed(0)
    model, dev = Recognizer(WordEncoder(load_tagger(tiny_encoder, SCHEMA)), load_tokenizer(tiny_encoder)), corpus('en', 12)
    plain = scores(tag_names(dev), model.tag(dev['tokens']))
    found = dev_scores(model, dict(en=dev))
    assert found['f1'] == found['f1_en'] == plain['f1'] and found['strict_f1'] == plain['strict']['f1']

def test_an_evaluator_is_scored_by_source_too(tiny_encoder, tmp_path):
    "A source without both kinds of entity pairs has no `entity_auc`: the mean is over those that have one"
    outside = dataset([['leo', 'na', 'Kano']]*3, [['O', 'O', 'B-LOC']]*3, SCHEMA)
    devs = dict(en=corpus('en', 20, 3), sw=outside)
    model = train_evaluator(corpus('en', 40), tmp_path/'model', tiny_encoder, QUICK, dev=devs)
    logged = [e for e in read_about(tmp_path/'model')['log'] if 'eval_f1' in e]
    for entry in logged:
        for name in ('f1', 'accuracy'): assert entry[f'eval_{name}'] == (entry[f'eval_{name}_en']+entry[f'eval_{name}_sw'])/2
        assert entry['eval_entity_auc'] == entry['eval_entity_auc_en'] and 'eval_entity_auc_sw' not in entry
    best = max(logged, key=lambda e: e['eval_f1'])
    for lang, dev in devs.items():
        assert pair_f1(model.vectors(dev['tokens']), flat(dev['ner_tags']))['f1'] == pytest.approx(best[f'eval_f1_{lang}'], abs=1e-6)

@pytest.mark.parametrize('make', [train_recognizer, train_evaluator])
def test_no_dev_set_keeps_the_last_epoch(tiny_encoder, tmp_path, make):
    a, b = (make(corpus('en', 20), tmp_path/n, tiny_encoder, QUICK, dev=dev) for n, dev in (('a', None), ('b', {})))
    assert weights_hash(a.encoder) == weights_hash(b.encoder)
    assert not any('eval_f1' in e for e in read_about(tmp_path/'a')['log'])

# ---- other encoders

def test_a_student_of_a_byte_level_encoder_keeps_the_space(tmp_path):
    size = byte_level(tmp_path/'encoder', 'whole', 'TokenizersBackend')
    set_seed(0)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model('roberta', **KINDS['roberta'] | dict(pad_token_id=1), vocab_size=size)
        ).save_pretrained(tmp_path/'encoder')
    model = train_recognizer(corpus('en', 8), tmp_path/'model', str(tmp_path/'encoder'), replace(QUICK, epochs=1))
    again = load_recognizer(tmp_path/'model')
    for tokenizer in (model.tokenizer, again.tokenizer): assert tokenizer.tokenize('Kano') == ['ĠKano']
    assert torch.allclose(again.probabilities([['Kano']]), model.probabilities([['Kano']]), atol=1e-5)

@pytest.mark.parametrize('kind', ['modernbert', 'eurobert', 'distilbert'])
def test_teachers_from_other_encoders(tiny_encoder, tmp_path, kind):
    "Trained with the default of frozen embeddings, saved, and loaded as they were; the bare evaluator too"
    tokenizer = load_tokenizer(tiny_encoder)
    set_seed(0)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **KINDS[kind], vocab_size=len(tokenizer))).save_pretrained(tmp_path/'encoder')
    tokenizer.save_pretrained(tmp_path/'encoder')
    words, place = [['Amina', 'saw', 'Kano']], str(tmp_path/'encoder')
    one = train_recognizer(corpus('en', 20), tmp_path/'one', place, QUICK, dev=dict(en=corpus('en', 6)), freeze_layers=1)
    two = train_evaluator(corpus('en', 20), tmp_path/'two', place, QUICK, dev=dict(en=corpus('en', 6)), freeze_layers=1)
    assert torch.allclose(load_recognizer(tmp_path/'one').probabilities(words), one.probabilities(words), atol=1e-5)
    assert torch.allclose(load_evaluator(tmp_path/'two').vectors(words), two.vectors(words), atol=1e-5)
