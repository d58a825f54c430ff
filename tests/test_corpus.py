"The embedded corpus is parallel, its card is right, and its test is not in its training text."
import re
from collections import Counter

import pytest

from mtmt.corpus import CORPUS_LANGUAGES, KIND_TYPES, corpus_folder, corpus_split, entity_texts, generate, names, parse_marked, read_marked
from mtmt.data import DataError, content_hash, tag_names

def marked(lang): return read_marked(corpus_folder()/'sentences'/f'{lang}.txt', lang)
def lines(part, lang): return dict(l.split('\t') for l in (corpus_folder()/part/f'{lang}.txt').read_text(encoding='utf-8').splitlines())
def types(tags): return Counter(t[2:] for t in tags if t[0] == 'B')

@pytest.mark.parametrize('lang', CORPUS_LANGUAGES)
def test_parallel(lang):
    mine, english = marked(lang), marked('en')
    assert list(mine) == list(english) and len(mine) == 150
    for k in mine: assert types(mine[k][1]) == types(english[k][1]), k
    slots = lambda text: Counter(re.findall(r'\{(\w+)\}', text))
    assert {k: slots(v) for k, v in lines('frames', lang).items()} == {k: slots(v) for k, v in lines('frames', 'en').items()}
    assert {k: len(v) for k, v in names(lang).items()} == {k: len(v) for k, v in names('en').items()} and sum(len(v)
        for k, v in names(lang).items() if KIND_TYPES[k]) >= 200

@pytest.mark.parametrize('lang', CORPUS_LANGUAGES)
def test_training_text_keeps_clear_of_the_test(lang):
    train, natural = corpus_split(lang, 'train'), [*corpus_split(lang, 'dev')['tokens'], *corpus_split(lang, 'test')['tokens']]
    assert train.num_rows == 2000 == len({tuple(s) for s in train['tokens']}) and not {tuple(s) for s in train['tokens']} & {tuple(s)
        for s in natural}
    seen, test = {e for e, _ in entity_texts(train)}, entity_texts(corpus_split(lang, 'test'))
    assert sum(e not in seen for e, _ in test)/len(test) >= .5
    frames = {re.sub(r'\W|\d', '', re.sub(r'\{\w+\}', '', f)) for f in lines('frames', lang).values()}
    plain = {re.sub(r'\W|\d', '', re.sub(r'\[[^]]*\]\(\w+\)', '', s)) for s in lines('sentences', lang).values()}
    assert not frames & plain

def test_card_states_the_counts():
    card = (corpus_folder()/'README.md').read_text(); n = Counter(t for _, t in entity_texts(corpus_split('en', 'test')))
    assert f'{sum(n.values())} in every language: PER {n["PER"]}, LOC {n["LOC"]}, ORG {n["ORG"]}, MISC {n["MISC"]}' in card
    seen = {l: {e for e, _ in entity_texts(generate(l))} for l in CORPUS_LANGUAGES}
    share = [round(100*sum(e not in seen[l] for e, _ in entity_texts(corpus_split(l, 'test')))/198) for l in CORPUS_LANGUAGES]
    assert f'between {min(share)} and {max(share)} % of the test entities' in card

def test_seeds(): assert content_hash(generate('sw', 100)) == content_hash(generate('sw', 100)) != content_hash(generate('sw', 100, seed=1))

@pytest.mark.parametrize('text, message', [('[Kano](PLACE)', 'PLACE'), ('[Kano(LOC)', 'broken mark-up'), ('Kano](LOC)', 'broken mark-up')])
def test_broken_marks(text, message, tmp_path):
    with pytest.raises(DataError, match=message): parse_marked(text, 'en')
    (tmp_path/'x.txt').write_text(f'a\tfine\nb\t{text}\n')
    with pytest.raises(DataError, match=r'x.txt:2: '): read_marked(tmp_path/'x.txt', 'en')
