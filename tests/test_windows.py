"Windows as flat arrays: the same as sentence by sentence, whatever the text, and small"
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mtmt.data import in_blocks, read_words
from mtmt.encoders import load_tokenizer
from mtmt.windows import _spans, word_pieces, windows

def by_sentence(tokens, tokenizer, max_length, overlap):
    "The same windows, made the plain way"
    special = tokenizer('')['input_ids']
    head, tail, room = special[:1], special[1:], max_length-len(special)
    pieces = {w: p[:room] for w, p in word_pieces((w for s in tokens for w in s), tokenizer).items()}
    start = 0
    for words in tokens:
        cut = [pieces[w] for w in words]
        for begin, end, low, high in _spans([len(c) for c in cut], room, min(overlap, room//3)) if words else []:
            places = len(head)+np.cumsum([0]+[len(c) for c in cut[begin:end]])
            yield dict(input_ids=head+sum(cut[begin:end], [])+tail, first=places[low-begin:high-begin].tolist(),
                rows=list(range(start+low, start+high)))
        start += len(words)

@pytest.fixture(scope='module')
def embedded(): return load_tokenizer('embedded')

WORDS = st.one_of(st.sampled_from(['Kano', 'Nairobi', '中国', 'ไทย', 'راشتراپتی', '\u200b', '[SEP]', 'antidisestablishmentarianism']), st.text(max_size=9))

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(WORDS, max_size=30), max_size=8), st.integers(8, 64), st.integers(0, 40), st.integers(1, 4))
# the last window but one of the first sentence owns no word
@example([['Kano', 'antidisestablishmentarianism', *['Kano']*4, 'ไทย', 'Kano', '0:2;0:'], ['Kano']], 8, 2, 2)
def test_flat_windows_are_those_made_sentence_by_sentence(monkeypatch, embedded, tokens, room, overlap, block):
    monkeypatch.setattr('mtmt.windows.in_blocks', lambda items, size=0: in_blocks(items, block))
    cut = windows(tokens, embedded, room, overlap)
    plain = list(by_sentence(tokens, embedded, room, overlap))
    assert [{k: v.tolist() for k, v in w.items()} for w in cut] == plain
    assert cut.lengths.tolist() == [len(w['input_ids']) for w in plain]
    owners = [i for i, w in enumerate(plain) for _ in w['rows']]
    assert cut.owner(np.arange(len(owners))).tolist() == owners

def test_a_column_of_a_data_set_is_read_as_a_list_is(embedded):
    tokens = [['Amina', 'lives', 'in', 'Kano'], [], ['Habari']]*3
    one, two = windows(tokens, embedded), windows(Dataset.from_dict(dict(tokens=tokens))['tokens'], embedded)
    assert len(one) == 6 and all((a == b).all() for a, b in zip(vars(one).values(), vars(two).values()))
    with pytest.raises(IndexError): one[6]

@pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='counts open files as Linux shows them')
def test_nothing_is_left_behind(embedded, tmp_path, monkeypatch):
    "The files have no name, and are closed when the windows go"
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    before = len(os.listdir('/proc/self/fd'))
    cut = windows([['Kano']], embedded)
    assert cut[0]['first'].tolist() == [1] and not list(tmp_path.iterdir())
    del cut
    assert len(os.listdir('/proc/self/fd')) <= before

def most_memory(path, count, tokenizer):
    "Python's peak of memory in bytes while raw text is read and cut into windows"
    path.write_text('Amina lives in Kano and Juma in Nairobi .\n'*count)
    tracemalloc.start()
    try:
        corpus, _ = read_words(path)
        cut = windows(corpus['tokens'], tokenizer)
        assert len(cut) == count and len(cut.first) == 9*count
        return tracemalloc.get_traced_memory()[1]-path.stat().st_size
    finally: tracemalloc.stop()

def test_memory_does_not_grow_with_the_text(tmp_path, embedded):
    "Beyond the bytes of the file, which are read at once"
    windows([['Kano']], embedded)
    few, many = (most_memory(tmp_path/'text.txt', count, embedded) for count in (10_000, 40_000))
    assert many < 1.25*few

@pytest.mark.parametrize('word', ['<s>', '</s>', '<pad>', '<mask>', 'a</s>b', '</s></s>'])
def test_a_word_is_never_a_control_piece(word):
    tokenizer = load_tokenizer('embedded')
    control = set(tokenizer.all_special_ids)-{tokenizer.unk_token_id}
    assert not control & set(word_pieces([word], tokenizer)[word])
    [window] = windows([['Kano', word, 'da']], tokenizer)
    assert window['input_ids'][0] in control and window['input_ids'][-1] in control
    assert not control & set(window['input_ids'][1:-1].tolist()) and len(window['first']) == 3
