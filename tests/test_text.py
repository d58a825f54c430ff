"Raw text of any kind: nothing is lost, nothing overlaps, and lines do not change each other."
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmt.text import line_words, sentence_spans, split_text, text_words, word_spans

# every plane, and more often what the rules speak of
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aZé1.,'’-–?!\"()  \n\t。！的北京ก็ไปरामሰላም፡።😀🏽‍\u200b\u202f\ud800\x00"))), max_size=60)
LANGS = st.sampled_from(['en', 'sw', 'fr', 'zh', 'am', 'hi', 'ar', 'th', 'yo', '', 'zh-min-nan'])
INVISIBLE = {'Cc', 'Cf'}

def visible(text):
    import unicodedata
    return [not c.isspace() and unicodedata.category(c) not in INVISIBLE for c in text]

@settings(max_examples=400, deadline=None)
@given(TEXTS, LANGS)
def test_every_visible_character_is_in_exactly_one_word(text, lang):
    count = np.zeros(len(text), int)
    for begin, end in word_spans(text, lang):
        assert begin < end and not any(c.isspace() for c in text[begin:end])
        count[begin:end] += 1
    assert count.max(initial=0) <= 1 and all(count[visible(text)] == 1)

@settings(max_examples=300, deadline=None)
@given(TEXTS, LANGS)
def test_sentences_share_out_the_words(text, lang):
    sentences, words = split_text(text, lang), word_spans(text, lang)
    assert np.concatenate([np.empty((0, 2), int), *sentences]).tolist() == words.tolist()
    assert all(len(sentence) for sentence in sentences)
    spans = sentence_spans(text, lang)
    assert (spans[:, 0] < spans[:, 1]).all() and (spans[1:, 0] >= spans[:-1, 1]).all()
    assert text_words(text, lang) == [[text[b:e] for b, e in sentence] for sentence in sentences]

# a line of a file has no line feed, and its carriage return is gone
LINES = st.lists(st.one_of(TEXTS, st.lists(st.sampled_from(['Mr.', 'Nr.', 'p.m.', 'J.', 'Dr.', '5', 'a', 'A', '"', '(', ' ', '. ', '。']),
    max_size=8).map(''.join)).filter(lambda t: not set(t) & set('\r\n')), max_size=4)

@settings(max_examples=400, deadline=None)
@given(LINES, st.one_of(LANGS, st.sampled_from(['de', 'es', 'ru'])))
def test_a_line_is_cut_as_if_it_stood_alone(lines, lang):
    assert line_words(lines, lang) == [text_words(line, lang) for line in lines]
    if not any(set(line) & set('\x0b\x0c\x85\u2028\u2029') for line in lines):
        assert text_words('\n'.join(lines), lang) == [sentence for line in lines for sentence in text_words(line, lang)]

def test_words_that_corpora_keep_whole():
    words = lambda text, lang='': sum(text_words(text, lang), [])
    assert words('Kampala.') == ['Kampala', '.']
    assert words("the U.S.'s 3.5% (and more) ...", 'en') == ['the', 'U.S.', "'s", '3.5', '%', '(', 'and', 'more', ')', '...']
    assert words('Mji wa Dar es Salaam, Tanzania', 'sw') == ['Mji', 'wa', 'Dar', 'es', 'Salaam', ',', 'Tanzania']
    assert words("N'Djamena", 'ha') == ["N'Djamena"]
    assert words('a\u202fb') == ['a', 'b'] and words('\u200b \ufeff') == []
