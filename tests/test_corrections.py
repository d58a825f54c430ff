"Corrected sentences of the target: learned, said everywhere, and never those of the test."
from pathlib import Path

import pytest

from conftest import sentences, write
from mtmt.data import MtmtError, read_conll
from mtmt.encoders import weights_hash
from mtmt.recipes import RecipeError, make_recipe
from mtmt.records import read_runs
from mtmt.runs import planned_runs, run
from mtmt.teachers import load_recognizer

@pytest.fixture
def small(shared, tiny_encoder, tmp_path):
    files, _ = shared
    return lambda out=tmp_path/'runs', **given: make_recipe(**dict(benchmark='files', data_dir=str(files), target='sw', encoder=tiny_encoder,
        out_dir=str(out), max_length=32, epochs=1, method='tsl', sources='en', learning_rate=3e-3) | given)

def labelled(path, count=5, shift=100):
    write(path, sentences('sw', count, shift))
    return str(path)

def test_they_are_learned_and_said(small, tmp_path):
    corrected = labelled(tmp_path/'mine.conll', 6, 21)
    without, few = run(small()), run(small(corrected=corrected, allow_target_labels=True))
    assert '|shots:6|' in few['signature'] and 'shots' not in without['signature'] and few['options']['shots'] == 6
    assert [r['system'] for r in read_runs(tmp_path/'runs').rows if 'shots:' in r['signature']] != ['tsl']
    assert all('shots=6' in r['system'] for r in read_runs(tmp_path/'runs').rows if 'shots:' in r['signature'])
    weights = [weights_hash(load_recognizer(tmp_path/'runs'/r['run']/'model').encoder) for r in (without, few)]
    assert weights[0] != weights[1]
    # the teacher saw none of them
    assert without['teachers'] == few['teachers']
    assert any('LABELS OF THE TARGET: 6 sentences' in note for note in few['notes'])
    # a table of them alone says it too
    alone = run(small(out=tmp_path/'alone', corrected=corrected, allow_target_labels=True))
    assert [r['system'] for r in read_runs(tmp_path/'alone').rows] == ['tsl (shots=6)'] and alone['run'] == few['run']

def test_the_run_is_named_by_their_content(small, tmp_path):
    recipe = lambda name, **more: small(corrected=labelled(tmp_path/name, **more), allow_target_labels=True)
    first, same = recipe('a.conll', shift=20), recipe('b.conll', shift=20)
    other = recipe('c.conll', shift=21)
    names = planned_runs([first, same, other])
    assert names[0] == names[1] != names[2] and None not in names

def test_sentences_of_the_test_are_refused(small, shared, tmp_path):
    test = Path(shared[0])/'sw.test.conll'
    with pytest.raises(MtmtError, match=r'corrected: 12 of its 12 sentences are in the test set'):
        run(small(corrected=str(test), allow_target_labels=True))

@pytest.mark.parametrize('given, message', [
    (dict(), 'set allow_target_labels=True'),
    (dict(allow_target_labels=True, method='direct'), 'direct has no student'),
    (dict(allow_target_labels=True, rounds=2), 'not with others, translations')])
def test_what_does_not_go_together_is_refused(small, tmp_path, given, message):
    with pytest.raises(RecipeError, match=message): small(corrected=labelled(tmp_path/'a.conll'), **given)

def test_a_file_of_the_explorer_is_read_with_its_last_column(tmp_path):
    (tmp_path/'cases.conll').write_text('# word\trecognizer\tstudent\n\nAmina\tO\tB-PER\naliona\tO\tO\n\nKano\tB-PER\tB-LOC\n')
    found, report = read_conll(tmp_path/'cases.conll')
    assert found['tokens'][:] == [['Amina', 'aliona'], ['Kano']] and report.sentences == 2
    assert [found.features['ner_tags'].feature.int2str(t) for t in found['ner_tags']] == [['B-PER', 'O'], ['B-LOC']]
