"What costs time, as numbers that do not depend on the machine: padding, shapes, and how often an encoder reads a word."
import json, subprocess, sys
from collections import Counter

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn.modules.module import register_module_forward_hook

from conftest import ROOT, sentences
from mtmt.benchmarks import load_labelled
from mtmt.corpus import CORPUS_SCHEMA
from mtmt.data import Schema, dataset, unlabelled
from mtmt.encoders import WordEncoder, load_tagger, load_tokenizer
from mtmt.recipes import CHOICES
from mtmt.student import Distillation, distil
from mtmt.teachers import Annotations, annotate, train_evaluator, train_recognizer
from mtmt.training import Batches, TrainSettings, WordData, WordTrainer

def batches_of(tokens, tmp_path, encoder, **settings):
    "Masks of the batches of an epoch"
    data = WordData(tokens, load_tokenizer(encoder))
    arguments = TrainSettings(device='cpu', **settings).arguments(tmp_path, False, len(data))
    model = WordEncoder(load_tagger(encoder, CORPUS_SCHEMA))
    return [b['attention_mask'] for b in WordTrainer(model, data, None, arguments).get_train_dataloader()]

@pytest.mark.parametrize('lang, times', [('en', 1), ('sw', 1), ('zh', 1), ('en', 8)])
def test_hardly_any_of_a_batch_is_padding(tmp_path, lang, times):
    "2,000 sentences in batches of 4, or 16,000 in batches of 32"
    masks = batches_of(list(load_labelled('corpus', lang, 'train', CORPUS_SCHEMA)[0]['tokens'])*times, tmp_path, 'embedded')
    assert len(masks[0]) == 4*times
    assert sum(m.sum().item() for m in masks)/sum(m.numel() for m in masks) >= .95
    assert len({m.shape for m in masks}) <= 64

def test_the_order_of_batches_is_not_that_of_lengths(tmp_path):
    tokens = load_labelled('corpus', 'en', 'train', CORPUS_SCHEMA)[0]['tokens']
    lengths = [m.shape[1] for m in batches_of(tokens, tmp_path, 'embedded')]
    steps = [b >= a for a, b in zip(lengths, lengths[1:])]
    assert .3 < sum(steps)/len(steps) < .7

LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=300)

@given(LENGTHS, st.integers(1, 9), st.integers(1, 8), st.sampled_from(CHOICES['batching']))
def test_batches_hold_each_window_once_and_none_is_empty(lengths, size, pool, batching):
    batches = list(Batches(torch.tensor(lengths), size, batching, pool))
    assert sorted(sum(batches, [])) == list(range(len(lengths)))
    assert all(batches) and len(batches) == -(-len(lengths)//size)

@given(LENGTHS, st.integers(1, 9), st.sampled_from(['pieces', 'windows']))
def test_no_window_of_a_pool_is_longer_than_one_of_a_later_batch(lengths, size, batching):
    batches = [[lengths[i] for i in batch] for batch in Batches(torch.tensor(lengths), size, batching, pool=300)]
    in_order = sorted(batches, key=lambda batch: (min(batch), max(batch)))
    assert all(max(a) <= min(b) for a, b in zip(in_order, in_order[1:]))

@given(LENGTHS, st.integers(1, 9), st.sampled_from(['windows', 'random']))
def test_batches_hold_as_many_windows(lengths, size, batching):
    sizes = [len(batch) for batch in Batches(torch.tensor(lengths), size, batching, pool=300)]
    assert max(sizes) <= size and max(sizes)-min(sizes) <= 1

@given(LENGTHS, st.integers(1, 9))
def test_batches_hold_about_as_many_pieces(lengths, size):
    "Within the longest window of an equal share, where no batch had to take a window to have one at all"
    batches = list(Batches(torch.tensor(lengths), size, 'pieces', pool=300))
    amounts, share = [sum(lengths[i] for i in batch) for batch in batches], sum(lengths)/len(batches)
    if share >= max(lengths): assert all(abs(amount-share) <= max(lengths) for amount in amounts)

def test_each_model_reads_a_word_as_often_as_it_must(tmp_path, tiny_encoder):
    "A teacher reads the target once, whatever the number of epochs; a student once an epoch"
    schema = Schema(('PER', 'LOC', 'ORG'))
    rows = list(sentences('sw', 40, 0))
    target = dataset([w for w, _ in rows], [t for _, t in rows], schema)
    settings = TrainSettings(epochs=1, device='cpu')
    recognizer = train_recognizer(target, tmp_path/'r', tiny_encoder, settings)
    evaluator = train_evaluator(target, tmp_path/'e', tiny_encoder, settings)
    words, read = sum(map(len, target['tokens'])), Counter()
    def count(module, args, out):
        if isinstance(module, WordEncoder): read[module] += len(args[2])
    hook = register_module_forward_hook(count)
    try:
        for epochs in (1, 3):
            read.clear()
            for _ in range(2): found = annotate(target['tokens'], recognizer, evaluator, tmp_path/f'{epochs}.safetensors')
            assert read == {recognizer.encoder: words, evaluator.encoder: words}
            student = distil(unlabelled(target), found, schema, tmp_path/f's{epochs}', Distillation(), tiny_encoder,
                TrainSettings(epochs=epochs, device='cpu'))
            assert read[student.encoder] == epochs*words
    finally: hook.remove()

@pytest.mark.parametrize('frozen', [0, 1])
def test_a_frozen_layer_reads_a_window_once(tmp_path, tiny_encoder, frozen):
    "However many epochs there are; a layer in training once an epoch"
    rows = list(sentences('sw', 20, 0))
    text, read = dataset([w for w, _ in rows], [t for _, t in rows], Schema(('PER', 'LOC', 'ORG'))), Counter()
    def count(module, args, out):
        if type(module).__name__ == 'BertIntermediate': read[module] += len(args[0])
    hook = register_module_forward_hook(count)
    try: model = train_recognizer(text, tmp_path/'r', tiny_encoder, TrainSettings(epochs=3, device='cpu'), freeze_layers=frozen)
    finally: hook.remove()
    # two of them when a tagger is loaded and its scores are compared
    layers = model.encoder.model.base_model.encoder.layer
    assert [read[layer.intermediate]-2 for layer in layers] == [20 if frozen else 60, 60]

def test_states_are_not_kept_of_a_text_that_is_too_long(tmp_path, tiny_encoder, monkeypatch):
    "Then all layers read at every step, and the same is learned"
    rows = list(sentences('sw', 20, 0))
    text = dataset([w for w, _ in rows], [t for _, t in rows], Schema(('PER', 'LOC', 'ORG')))
    learn = lambda name: train_recognizer(text, tmp_path/name, tiny_encoder, TrainSettings(device='cpu', precision='fp32'),
        freeze_layers=1).encoder.state_dict()
    kept = learn('kept')
    monkeypatch.setattr('mtmt.training._MOST_KEPT', 1000)
    for name, weight in learn('not-kept').items(): torch.testing.assert_close(weight, kept[name], rtol=0, atol=2e-3)

def test_pairs_from_anywhere_start_from_kept_states_too(tmp_path, tiny_encoder, monkeypatch):
    "With pairs_from='corpus' an item is two windows, and each window has its states"
    schema, rows = Schema(('PER', 'LOC', 'ORG')), list(sentences('sw', 20, 0))
    target = unlabelled(dataset([w for w, _ in rows], [t for _, t in rows], schema))
    count = sum(map(len, target['tokens']))
    torch.manual_seed(0)
    found = Annotations(torch.rand(count, 7).softmax(-1), torch.rand(count, 8))
    how, settings = Distillation(pairs_from='corpus', corpus_pairs=40), TrainSettings(device='cpu', precision='fp32')
    learn = lambda name: distil(target, found, schema, tmp_path/name, how, tiny_encoder, settings, freeze_layers=1).encoder.state_dict()
    kept = learn('kept')
    monkeypatch.setattr('mtmt.training._MOST_KEPT', 1000)
    for name, weight in learn('not-kept').items(): torch.testing.assert_close(weight, kept[name], rtol=0, atol=2e-3)

@pytest.mark.slow
def test_the_benchmark_writes_what_it_measured(tmp_path):
    "As small as it can be: its ratios mean nothing, but each is there with its number of rounds"
    small = dict(sentences=8, epochs=1, pairs=2, tagged=4, seeds=1, learned=8, repetitions=1, long_repetitions=1, large=10_000)
    given = [word for name, value in small.items() for word in ('-p', name, str(value))]
    subprocess.run([sys.executable, '-m', 'papermill', '--no-progress-bar', ROOT/'nbs'/'benchmarks'/'speed.ipynb', tmp_path/'out.ipynb',
        '-p', 'out_dir', tmp_path, *given], check=True, cwd=ROOT)
    found = json.loads((tmp_path/'summary.json').read_text())
    asked = {'p1_fp32', 'p2', 'p3_teacher_share', 'p4', 'step_over_peak', 'real_token_share', 'memory_ratio_10k_over_10k'}
    assert asked <= found.keys() and all(found['repetitions'][key] == 1 for key in asked)
    assert found['memory_ratio_10k_over_10k'] == 1 and set(found['f1']) == {'teacher', "TSL's shape", 'mtmt'}
