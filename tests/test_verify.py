"Every file of a finished run, cut or with one byte changed, is named by `mtmt verify`."
import shutil, subprocess, sys

import numpy as np
import pytest

from conftest import make_files
from mtmt.records import read_runs, write_record
from mtmt.report import verify
from mtmt.runs import run
from test_runs import recipe

@pytest.fixture(scope='module')
def finished(tmp_path_factory, tiny_encoder):
    "A folder with a run of two teachers and a student"
    files, out = make_files(tmp_path_factory.mktemp('made')/'files'), tmp_path_factory.mktemp('runs')
    run(recipe(files, out, tiny_encoder, 'mtmt'))
    return out

def written(folder):
    "Every file that a later command may read"
    return sorted(path.relative_to(folder) for path in folder.rglob('*')
        if path.is_file() and '.locks' not in path.parts and path.name != 'asked.json')

def cut(path): path.write_bytes(path.read_bytes()[:path.stat().st_size//2])

def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content)//2] ^= 1
    path.write_bytes(bytes(content))

@pytest.mark.parametrize('spoil', [cut, one_bit, lambda path: path.unlink()], ids=['cut', 'one bit', 'removed'])
def test_every_file_is_named(finished, tmp_path, spoil, capsys):
    files = written(finished)
    kinds = {'run.json', 'predictions.conll', 'probabilities.safetensors', 'sentences.txt', 'mtmt.json', 'made_from.json', 'trained.safetensors'}
    assert kinds <= {path.name for path in files} and any(path.suffix == '.sha256' for path in files)
    for file in files:
        here = shutil.copytree(finished, tmp_path/'copy')
        assert verify(here) == 0 and capsys.readouterr().out.endswith('1 run, 2 teachers, 3 annotation files; nothing wrong\n')
        spoil(here/file)
        gone = not (here/file).exists()
        # without its record a folder is no finished run, and a model's list of parts only tells its name again
        if gone and file.name in ('run.json', 'made_from.json'):
            shutil.rmtree(here)
            continue
        found = verify(here)
        out = capsys.readouterr().out
        # a folder without mtmt.json is named itself, and the hash of an annotation file by the file that it belongs to
        name = f'{file.parent}: ' if gone and file.name == 'mtmt.json' else str(file.with_suffix(''))
        assert found == 1 and name in out, (file, out)
        shutil.rmtree(here)

def test_a_changed_score_is_in_no_table(finished, tmp_path, capsys):
    here = shutil.copytree(finished, tmp_path/'copy')
    [record] = here.glob('*/run.json')
    text = record.read_text()
    f1 = next(line for line in text.splitlines() if line.startswith(' "f1": '))
    record.write_text(text.replace(f1, ' "f1": 0.99,'))
    rows = read_runs(here)
    assert not rows.rows and 'run.json was changed' in rows.left_out[0]
    assert verify(here) == 1 and 'run.json: it was changed' in capsys.readouterr().out
    # at the end of the session, conftest computes what is left under tmp_path again
    shutil.rmtree(here)

def test_the_same_run_is_written_in_the_same_bytes(tmp_path):
    "Ten times in a row: safetensors orders several notes of a file as it likes"
    words, tags, p = [['Amina', 'anaishi']], [['B-PER', 'O']], np.eye(3, dtype=np.float32)[[1, 0]]
    kept = set()
    for i in range(10):
        write_record(tmp_path/str(i), dict(systems=dict(teacher={}, student={})), words, ['0'], tags, dict(teacher=tags, student=tags),
            dict(teacher=p, student=p), ['O', 'B-PER', 'I-PER'])
        kept.add((tmp_path/str(i)/'probabilities.safetensors').read_bytes())
        (tmp_path/str(i)/'run.json').unlink()
    assert len(kept) == 1

LIMITED = '''
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)      # a write over the limit is an error then, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),)*2)
from mtmt.cli import main
sys.exit(main(sys.argv[2:]))
'''

@pytest.mark.parametrize('limit', [20_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (2000, 60_000))])
def test_a_full_disk_is_one_line_and_nothing_is_half_written(small_files, tmp_path, tiny_encoder, limit):
    "The disk takes no file of more than so many bytes: models, annotations or checkpoints fail; with room again, the run ends as always"
    out = tmp_path/'out'
    options = recipe(small_files, out, tiny_encoder, 'mtmt')
    given = []
    for name in ('benchmark', 'target', 'method', 'data_dir', 'out_dir', 'encoder', 'max_length', 'learning_rate', 'epochs'):
        given += ['-p', name, str(getattr(options, name))]
    command = [sys.executable, '-c', LIMITED, str(limit), 'run', *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr[-3000:]
    assert 'File too large' in done.stderr.strip().split('\n')[-1], done.stderr[-500:]
    assert not list(out.rglob('*.tmp')) and not list(out.glob('*/run.json'))
    assert run(options)['f1'] is not None and verify(out) == 0
