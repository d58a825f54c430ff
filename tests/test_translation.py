"Translated text teaches; a sentence is tagged by way of its translation; both are named by the content of their files."
import json

import pytest

from conftest import sentences, write
from mtmt.data import MtmtError
from mtmt.recipes import make_recipe
from mtmt.records import read_predictions
from mtmt.runs import planned_runs, run
from test_runs import recipe, shuffle_target_labels, weights

@pytest.fixture
def translated(tmp_path):
    "English sentences in the target's language, with their tags"
    write(tmp_path/'en-sw.conll', list(sentences('sw', 30, 77)))
    return str(tmp_path/'en-sw.conll')

@pytest.fixture
def translations(tmp_path, small_files):
    "Each sentence of the target, as its own translation"
    def texts(split):
        blocks = (small_files/f'sw.{split}.conll').read_text().strip().split('\n\n')
        return [' '.join(line.split('\t')[0] for line in block.split('\n')) for block in blocks]
    rows = (dict(text=text, translation=text) for split in ('train', 'test') for text in texts(split))
    (tmp_path/'sw-en.jsonl').write_text(''.join(json.dumps(row)+'\n' for row in rows))
    return str(tmp_path/'sw-en.jsonl')

def test_translated_sentences_are_one_more_source(small_files, tmp_path, tiny_encoder, translated):
    pot, alone = (run(recipe(small_files, tmp_path, tiny_encoder, 'direct', **more)) for more in (dict(translated=translated), {}))
    assert '|src:en+translated|' in pot['signature'] and pot['options']['translated'] == 'en-sw' and pot['sources'] == ['en']
    assert pot['teachers'] != alone['teachers'] and set(pot['made_from']['data']['train']) == {'en', 'translated'}
    pool = run(recipe(small_files, tmp_path, tiny_encoder, 'tsl-multi', sources='en,de', translated=translated))
    assert set(pool['teachers']) == {'recognizer-en', 'recognizer-de', 'recognizer-translated'}

def test_translate_test_is_scored_and_teaches(small_files, tmp_path, tiny_encoder, translations):
    way = run(recipe(small_files, tmp_path/'a', tiny_encoder, 'translate-test', translations=translations, learning_rate=3e-3))
    assert set(way['systems']) == {'recognizer', 'translate-test'} and way['f1'] == way['systems']['translate-test']['f1']
    said = read_predictions(tmp_path/'a'/way['run'])[1]
    assert all(map(len, said['translate-test'])) and [len(t) for t in said['translate-test']] == [len(t) for t in said['gold']]
    taught, alone = (run(recipe(small_files, tmp_path/'a', tiny_encoder, 'tsl', **more)) for more in (dict(translations=translations), {}))
    a, b = weights(tmp_path/'a', taught), weights(tmp_path/'a', alone)
    assert any((a[k] != b[k]).any() for k in a) and 'translate-test' in taught['systems']
    shuffle_target_labels(small_files)
    again = weights(tmp_path/'b', run(recipe(small_files, tmp_path/'b', tiny_encoder, 'tsl', translations=translations)))
    assert all((a[k] == again[k]).all() for k in a)

def test_another_file_is_another_run(small_files, tmp_path, tiny_encoder, translated, translations):
    asked = [recipe(small_files, tmp_path, tiny_encoder, 'tsl', **{k: v}) for k, v in (('translated', translated), ('translations', translations))]
    before = planned_runs(asked)
    for path in (translated, translations):
        with open(path, 'a') as file: file.write('\nnew\tO\n\n' if path == translated else '{"text": "x", "translation": "y"}\n')
    assert None not in before and not set(before) & set(planned_runs(asked))

def test_what_is_missing_is_said(small_files, tmp_path, tiny_encoder):
    with pytest.raises(MtmtError, match='needs translations'): make_recipe(method='translate-test')
    (tmp_path/'few.jsonl').write_text('{"text": "x", "translation": "y"}\n')
    with pytest.raises(MtmtError, match='no translation of .* the first: '):
        run(recipe(small_files, tmp_path, tiny_encoder, 'translate-test', translations=str(tmp_path/'few.jsonl')))
