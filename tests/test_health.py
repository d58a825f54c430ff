"A look at files before training: exit status, conversion, and what files have in common."
import subprocess, sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtmt.cli import main
from mtmt.data import MtmtError, Schema, read_conll, tag_names, write_conll
from mtmt.encoders import load_tokenizer
from mtmt.health import bio_of_io, check_file, convert, cut_entities, data_health, repeated_sentences

SAME_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = [['Amina', 'anaishi', 'Dodoma'], ['Rais', 'Samia', 'Hassan']]
TAGS = [['B-PER', 'O', 'B-LOC'], ['O', 'B-PER', 'I-PER']]

def sentences():
    "Tags of some sentences in BIO, as entities of random lengths"
    pieces = st.lists(st.tuples(st.sampled_from(['O', 'PER', 'LOC']), st.integers(1, 3)), min_size=1, max_size=6)
    def tags(parts): return [t if kind == 'O' else f'{"BI"[i > 0]}-{kind}' for kind, n in parts for i, t in enumerate(['O']*n)]
    return st.lists(pieces.map(tags), min_size=4, max_size=8)

def bioes(tags):
    "The same tags with S for an entity of one word and E for the last word"
    following = [*tags[1:], 'O']
    alone = dict(B='S', I='E')
    return [t if t == 'O' or n[0] == 'I' else alone[t[0]]+t[1:] for t, n in zip(tags, following)]

def iob1(tags):
    "The same tags with B only between two entities of one type"
    before = ['O', *tags[:-1]]
    return [t if t == 'O' or t[0] == 'B' and b[2:] == t[2:] else 'I'+t[1:] for t, b in zip(tags, before)]

def check(*arguments, capsys):
    "Exit status and what was printed"
    status = main(['check', *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err

def test_exit_status_says_clean_problems_or_wrong_use(tmp_path, capsys):
    clean, bad = tmp_path/'sw.train.conll', tmp_path/'bad.conll'
    write_conll(clean, WORDS, TAGS)
    bad.write_text('Amina\tI-PER\n')
    assert check(clean, capsys=capsys)[0] == 0
    status, out, err = check(clean, bad, capsys=capsys)
    assert status == 1 and f'{bad}:1:7: I-PER does not follow' in out and '--convert' in err
    for wrong, message in ((tmp_path/'none.conll', 'no such file'), (tmp_path/'empty', 'no file <language>')):
        (tmp_path/'empty').mkdir(exist_ok=True)
        status, out, err = check(wrong, capsys=capsys)
        assert status == 2 and message in err and not out
    with pytest.raises(SystemExit) as error: main(['check'])
    assert error.value.code == 2

def test_a_traceback_is_there_when_wanted(tmp_path, capsys):
    assert main(['check', str(tmp_path/'none')]) == 2
    with pytest.raises(MtmtError, match='no such file'): main(['--traceback', 'check', str(tmp_path/'none')])

def test_the_command_as_a_process(tmp_path):
    (tmp_path/'x.conll').write_text('Amina\tPER\nna\tO\n\n'*6)
    done = subprocess.run([sys.executable, '-m', 'mtmt.cli', 'check', 'x.conll', '--convert', 'new'], cwd=tmp_path,
        capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.startswith('x.conll:1:7: the tags are types without B- or I-'), done.stderr
    assert tag_names(read_conll(tmp_path/'new/x.conll')[0]) == [['B-PER', 'O']]*6
    assert '6 runs of one type became one entity each' in done.stdout

def test_a_run_is_not_a_corpus(tmp_path, capsys):
    (tmp_path/'run.json').write_text('{}')
    status, _, err = check(tmp_path, capsys=capsys)
    assert status == 2 and 'mtmt verify' in err
    (tmp_path/'run.json').unlink()

@SAME_FOLDER
@given(sentences(), st.sampled_from([bioes, iob1]))
def test_conversion_gives_the_same_entities(tmp_path, tags, scheme):
    words = [[f'w{i}' for i, _ in enumerate(s)] for s in tags]
    for name in ('a', 'b'): (tmp_path/f'{name}.conll').unlink(missing_ok=True)
    write_conll(tmp_path/'a.conll', words, [scheme(s) for s in tags])
    convert(tmp_path/'a.conll', tmp_path/'b.conll')
    corpus, _ = read_conll(tmp_path/'b.conll', Schema(('PER', 'LOC')))
    assert tag_names(corpus) == tags and list(corpus['tokens']) == words

@given(st.lists(st.sampled_from(['O', 'PER', 'LOC']), max_size=9))
def test_runs_of_io_become_entities(types):
    assert [t[2:] or t for t in bio_of_io(types)] == types

def test_nothing_is_written_over(tmp_path, capsys):
    write_conll(tmp_path/'x.conll', WORDS, TAGS)
    (tmp_path/'new').mkdir()
    status, _, err = check(tmp_path/'x.conll', '--convert', tmp_path/'new', capsys=capsys)
    assert status == 2 and 'is there already' in err and not list((tmp_path/'new').iterdir())

def test_what_files_have_in_common(tmp_path):
    write_conll(tmp_path/'sw.train.conll', WORDS+WORDS[:1], TAGS+[['B-PER', 'O', 'O']])
    write_conll(tmp_path/'sw.dev.conll', WORDS[1:], TAGS[1:])
    write_conll(tmp_path/'sw.test.conll', WORDS[:1]+[['Leo', 'ni', 'Idi']], TAGS[:1]+[['O', 'O', 'B-DATE']])
    (tmp_path/'yo.train.txt').write_text('Amina anaishi Dodoma\n')
    found = data_health([tmp_path])
    assert not found.problems and [n.split(': ', 1)[1] for n in found.notes] == [
        '1 sentence of sw.dev.conll (100.0 %) also in sw.train.conll; first: sw.dev.conll, sentence 1',
        '1 sentence of sw.test.conll (50.0 %) also in sw.train.conll; first: sw.test.conll, sentence 1',
        'repeated sentences: 1 of sw.train.conll',
        '1 sentence with more than one labelling; first: sw.train.conll, sentence 1; sw.train.conll, sentence 3',
        'test has types that train lacks: DATE']
    assert found.table.loc[str(tmp_path/'sw.test.conll'), ['sentences', 'words', 'entities', 'DATE']].tolist() == [2, 6, 3, 1]

def test_raw_text_and_one_column_are_text_without_labels(tmp_path):
    (tmp_path/'sw.train.txt').write_text('Amina anaishi Dodoma.\n')
    (tmp_path/'sw.dev.conll').write_text('Amina\nanaishi\n\n')
    for name, words in (('sw.train.txt', 4), ('sw.dev.conll', 2)):
        found = check_file(tmp_path/name)
        assert found.tags is None and not found.problems and found.row['words'] == words

def test_entities_at_a_cut_are_counted(tmp_path):
    tokenizer = load_tokenizer('embedded')
    write_conll(tmp_path/'x.conll', [['Amina']*200], [['B-PER']+['I-PER']*199])
    assert cut_entities(check_file(tmp_path/'x.conll'), tokenizer) == (1, 1)

def test_the_published_dutch_test_stands_in_its_training_text(real_data):
    files = [check_file(real_data/f'wikiann/nl.{split}.conll') for split in ('train', 'test')]
    assert repeated_sentences(files)[0].startswith('1,640 sentences of nl.test.conll (16.4 %) also in nl.train.conll')

def test_many_types_have_no_column_each(tmp_path):
    "300 types, the first ones more frequent: twenty columns, and one for the others; types that train lacks are not all named"
    rows = [f'w{i} B-T{i:03}\n' for i in range(300) for _ in range(1+(i < 20))]
    (tmp_path/'xx.dev.conll').write_text('\n'.join(rows))
    (tmp_path/'xx.train.conll').write_text('Oslo B-T000\n')
    found = data_health([tmp_path])
    table = found.table.T[str(tmp_path/'xx.dev.conll')]
    assert list(table.index[4:]) == [f'T{i:03}' for i in range(20)]+['280 other types'] and table['280 other types'] == 280
    assert [n for n in found.notes if n.endswith('dev has types that train lacks: T001, T002, T003, T004, T005, T006, T007, T008, T009, T010 and 289 more')]
