"The tagger: places are right for any text, batches do not matter, mistakes are refused, files go on after a kill."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import papermill
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from mtmt.cli import main
from mtmt.confidence import Confidence
from mtmt.data import Schema
from mtmt.encoders import WordEncoder, load_tagger, load_tokenizer
from mtmt.export import export_model
from mtmt.recipes import make_recipe
from mtmt.records import read_predictions, read_record
from mtmt.runs import run
from mtmt.tagger import TextError, Tagger, tag_file
from mtmt.teachers import Recognizer

@pytest.fixture(scope='module')
def a_run(shared, tiny_encoder):
    files, out = shared
    return Path(out)/run(make_recipe(benchmark='files', data_dir=str(files), target='sw', encoder=tiny_encoder, out_dir=str(out),
        max_length=32, learning_rate=3e-3, epochs=2, method='tsl', sources='en'))['run']

@pytest.fixture(scope='module')
def tagger(a_run): return Tagger.load(a_run)

@pytest.fixture(scope='module')
def random_tagger():
    "The embedded encoder with a random linear layer: it finds something everywhere"
    return Tagger(Recognizer(WordEncoder(load_tagger('embedded', Schema(('PER', 'LOC')))), load_tokenizer('embedded'), 32))

def places(tagged): return [(e.start, e.end, e.type) for e in tagged.entities]

def test_on_the_words_of_a_run_it_says_what_the_run_said(a_run, tagger):
    words, systems = read_predictions(a_run)
    assert tagger.model.tag(words, tagger.how) == systems['student']
    # the same as raw text: these words are cut as they were
    for sentence, tags in zip(words, systems['student']):
        text = ' '.join(sentence)
        begins = np.cumsum([0, *(len(word)+1 for word in sentence)]).tolist()
        expected = [begins[i] for i, tag in enumerate(tags) if tag[0] == 'B']
        assert [e.start for e in tagger(text).entities if e.start in expected] == expected
    about = read_record(a_run)
    assert about['confidence']['fitted_on'] == 'en' and tagger.confidence == Confidence(**about['confidence'])

TEXTS = st.text(st.one_of(st.characters(exclude_categories=['Cs']), st.sampled_from(list('aZ. ,\n。的北ก็रሰ😀🏽‍\u200b\x00'))), max_size=50)

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_places_are_those_of_the_text(random_tagger, text):
    tagged = random_tagger(text)
    assert all(text[e.start:e.end] == e.text and e.text.strip() == e.text != '' for e in tagged.entities)
    assert all(0 <= e.confidence <= 1 for e in tagged.entities)
    assert all(one.end <= other.start for one, other in zip(tagged.entities, tagged.entities[1:]))
    row = json.loads(tagged.json())
    assert row['text'] == text and [(e['start'], e['end'], e['label']) for e in row['entities']] == places(tagged)

def test_neither_batch_nor_order_nor_company_matters(random_tagger):
    texts = ['Amina lives in Kano.', '', 'Rais Samia alifika Dodoma. '*30, '北京大學在北京。', 'राम दिल्ली में है।', 'x', 'a b c d e f g '*40]
    together = random_tagger(texts)
    for order in (list(range(len(texts))), [6, 2, 0, 1, 5, 4, 3]):
        shuffled = random_tagger([texts[i] for i in order])
        for i, tagged in zip(order, shuffled):
            for other in (together[i], random_tagger(texts[i])):
                assert places(tagged) == places(other)
                assert np.allclose([e.confidence for e in tagged.entities], [e.confidence for e in other.entities], atol=1e-4)
    assert [places(t) for t in random_tagger.stream(iter(texts), block=2)] == [places(t) for t in together]

def test_a_stream_is_read_no_further_than_asked(tagger):
    read = []
    def endless():
        while True:
            read.append(1)
            yield 'Amina aliona Kano'
    stream = tagger.stream(endless(), block=4)
    next(stream)
    assert len(read) == 4

@pytest.mark.parametrize('text, message', [
    (b'Amina', 'bytes cannot be tagged'), (7, 'int cannot be tagged'), ({'text': 'x'}, 'dict cannot be tagged'),
    (['Amina', None], 'text 2 is NoneType, not a string: None'), ([b'Amina'], 'decode bytes first'),
    ('a'*10_000_000, r'text 1: a word of 10,000,000 characters at character 0'),
    ('Amina \ud83d', r'text 1: character 6 is half of a pair \(U\+D83D\)')])
def test_what_is_no_text_is_refused_in_words(tagger, text, message):
    with pytest.raises(TextError, match=message): tagger(text)

def test_control_characters_and_nothing_are_text(random_tagger):
    for text in ('', ' ', '\x00\x07', 'Amina\x00 Kano\x1b[31m', '\u202eAmina', '\r\n\r\n'): random_tagger(text)
    assert not random_tagger('').entities and random_tagger([]) == []

def test_a_string_where_words_are_wanted_is_refused(tagger):
    from mtmt.data import DataError
    with pytest.raises(DataError, match='a sentence is a list of words, and .Amina. is a string'): tagger.model.tag(['Amina'])

def test_an_export_tags_as_the_run(a_run, tagger, tmp_path):
    again = Tagger.load(export_model(a_run, tmp_path/'model'))
    texts = ['Amina aliona katika Kano leo', 'Kofi na Juma']
    assert (again.lang, again.how, again.confidence) == (tagger.lang, tagger.how, tagger.confidence)
    assert [places(t) for t in again(texts)] == [places(t) for t in tagger(texts)]
    with pytest.raises(TextError, match='no folder of a run or of a model'): Tagger.load(tmp_path/'nothing')

def test_a_threshold_leaves_out_the_doubtful(random_tagger):
    text = 'Amina lives in Kano with Kofi and Juma'
    every = random_tagger(text).entities
    middle = float(np.median([e.confidence for e in every]))
    sure = Tagger(random_tagger.model, threshold=middle)(text).entities
    assert sure == [e for e in every if e.confidence >= middle] and 0 < len(sure) < len(every)

def lines(path, count):
    path.write_text(''.join(f'Amina aliona katika Kano {i}\n' for i in range(count)))
    return path

def test_an_interrupted_file_is_continued(tagger, tmp_path, monkeypatch):
    source, whole = lines(tmp_path/'in.txt', 10), tmp_path/'whole.jsonl'
    tag_file(tagger, source, whole, block=3)
    assert len(whole.read_text().splitlines()) == 10 and len(list(tmp_path.iterdir())) == 2
    calls, real = [], type(tagger).__call__
    def failing(self, texts):
        calls.append(len(texts))
        if len(calls) == 3: raise KeyboardInterrupt
        return real(self, texts)
    monkeypatch.setattr(Tagger, '__call__', failing)
    with pytest.raises(KeyboardInterrupt): tag_file(tagger, source, tmp_path/'out.jsonl', block=3)
    part, = tmp_path.glob('.out.jsonl.*.part')
    part.write_text(part.read_text()+'{"text": "cut o')
    tag_file(tagger, source, tmp_path/'out.jsonl', block=3)
    # six were kept, so two blocks were left
    assert calls == [3, 3, 3, 3, 1] and (tmp_path/'out.jsonl').read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob('.*'))

@pytest.mark.parametrize('name, content, message', [
    ('a.txt', b'Amina\nKan\xe9\n', r'a.txt:2: byte 4 is not UTF-8'),
    ('a.jsonl', b'{"text": "Amina"}\n{"text": 7}\n', r'a.jsonl:2: no object with a `text`'),
    ('a.jsonl', b'{"text": "Amina"\n', r'a.jsonl:1: not JSON'),
    ('a.txt', b'', 'a.txt: the file is empty')])
def test_bad_files_are_refused_with_their_line(tagger, tmp_path, name, content, message):
    (tmp_path/name).write_bytes(content)
    from mtmt.data import MtmtError
    with pytest.raises(MtmtError, match=message): tag_file(tagger, tmp_path/name, tmp_path/'out')
    assert not (tmp_path/'out').exists()

def mtmt(*args, cwd, **more):
    "The command in a process of its own"
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', TQDM_DISABLE='1')
    return subprocess.run([sys.executable, '-m', 'mtmt.cli', *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, **more)

def test_the_command_reads_pipes_and_files(a_run, tmp_path, monkeypatch, capsys):
    out = mtmt('tag', a_run, cwd=tmp_path, input='Amina aliona Kano\n\nKofi leo\n')
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert out.returncode == 0 and [r['text'] for r in rows] == ['Amina aliona Kano', '', 'Kofi leo'], out.stderr
    (tmp_path/'a.txt').write_text('Amina aliona Kano\n')
    (tmp_path/'b.conll').write_text('Amina\naliona\nKano\n\n')
    monkeypatch.chdir(tmp_path)
    assert main(['tag', str(a_run), 'a.txt', 'b.conll', '--out', 'tagged']) == 0
    assert sorted(p.name for p in (tmp_path/'tagged').iterdir()) == ['a.jsonl', 'b.conll']
    assert [line.split('\t')[0] for line in (tmp_path/'tagged/b.conll').read_text().splitlines() if line] == ['Amina', 'aliona', 'Kano']
    assert main(['tag', str(a_run), 'nowhere.txt']) == 2 and 'nowhere.txt' in capsys.readouterr().err

def test_a_language_of_ones_own_from_command_to_tags(tiny_encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['new', 'mine', '--target', 'lg']) == 0
    assert main(['check', 'mine']) == 1 and 'no file lg.train.conll or lg.train.txt' in capsys.readouterr().out
    (tmp_path/'mine/data/lg.train.txt').write_text('Amina aliona Kano. Kofi na Juma.\n'*20)
    assert main(['check', 'mine']) == 0
    said = capsys.readouterr().out
    assert '40 sentences' in said and 'ready: mtmt run -f mine/recipe.yaml' in said
    with (tmp_path/'mine/recipe.yaml').open('a') as file: file.write(f'encoder: {tiny_encoder}\nepochs: 1\nmax_length: 32\n')
    out = mtmt('run', '-f', 'mine/recipe.yaml', '-p', 'limit', '20', cwd=tmp_path)
    assert out.returncode == 0 and 'trained, not scored. Tag text with: mtmt tag ' in out.stdout, out.stderr
    made, = (tmp_path/'mine/runs').glob('files-lg-tsl-*')
    assert read_record(made)['f1'] is None and str(made) in out.stdout
    (tmp_path/'news.txt').write_text('Amina aliona Kano.\n')
    assert main(['tag', str(made), 'news.txt']) == 0
    assert json.loads(capsys.readouterr().out)['text'] == 'Amina aliona Kano.'
    assert main(['export', str(made), 'model']) == 0 and 'Not scored' in (tmp_path/'model/README.md').read_text()
    # its notebook runs from top to bottom, in its own folder
    papermill.execute_notebook('mine/train.ipynb', 'done.ipynb', dict(), cwd='mine', progress_bar=False, kernel_name='python3')
    assert len(list((tmp_path/'mine/runs').glob('files-lg-tsl-*'))) == 2
    # a run without a score is in no table, and says so
    capsys.readouterr()
    main(['table', 'mine/runs'])
    said = capsys.readouterr()
    assert 'no test set' in said.out+said.err

def commands_of_readme(heading):
    "The commands of the first shell block under a heading, without remarks"
    block = (ROOT/'README.md').read_text(encoding='utf-8').split(f'## {heading}\n')[1].split('```')[1]
    return [line.split('  #')[0].strip() for line in block.strip().splitlines()]

def test_the_readmes_own_commands_for_a_language(tiny_encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('my_text.txt').write_text('Amina aliona Kano. Kofi na Juma.\n'*20)
    Path('news.txt').write_text('Amina aliona Kano.\n')
    lines = commands_of_readme('A language of your own')
    assert [line.split()[:2] for line in lines] == [['.venv/bin/mtmt', 'new'], ['cp', 'my_text.txt'], ['.venv/bin/mtmt', 'check'],
        ['.venv/bin/mtmt', 'run'], ['.venv/bin/mtmt', 'tag']]
    for line in lines:
        name, *args = line.split()
        if name == 'cp': shutil.copy(*args)
        else:
            made = next(Path('luganda/runs').glob('files-*'), None) if 'tag' in args else None
            assert main([arg.replace('luganda/runs/RUN', str(made)) for arg in args]) == 0, capsys.readouterr()
        # a small encoder, and little text: the real one is for the tutorial
        if 'new' in args:
            with Path('luganda/recipe.yaml').open('a') as file: file.write(f'encoder: {tiny_encoder}\nepochs: 1\nmax_length: 32\nlimit: 20\n')
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['text'] == 'Amina aliona Kano.'

def test_a_killed_command_goes_on(a_run, tagger, tmp_path):
    source = lines(tmp_path/'in.txt', 3000)
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', TQDM_DISABLE='1')
    command = [sys.executable, '-m', 'mtmt.cli', 'tag', str(a_run), 'in.txt', '--out', 'out.jsonl', '--block', '16']
    process = subprocess.Popen(command, cwd=tmp_path, env=env)
    for _ in range(600):
        if any(p.stat().st_size for p in tmp_path.glob('.out.jsonl.*.part')): break
        time.sleep(.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path/'out.jsonl').exists() and list(tmp_path.glob('.out.jsonl.*.part'))
    assert subprocess.run(command, cwd=tmp_path, env=env).returncode == 0
    found = [json.loads(line) for line in (tmp_path/'out.jsonl').read_text().splitlines()]
    assert [row['text'] for row in found] == source.read_text().splitlines()
    assert [f'{e["start"]}-{e["end"]}' for e in found[7]['entities']] == [f'{e.start}-{e.end}' for e in tagger(found[7]['text']).entities]
