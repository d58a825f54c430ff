"Sweeps that are killed, again and again: what is done stays done, and the leaderboard is that of a sweep left in peace"
import json, os, pty, random, shutil, signal, subprocess, sys, time

import psutil
import pytest
import yaml

from conftest import ROOT
from mtmt.batch import sweep_jobs
from mtmt.report import recompute_all, write_report
from mtmt.recipes import make_recipe
from mtmt.runs import run

ENV = dict(os.environ, HF_HUB_OFFLINE='1', PYTHONPATH=str(ROOT), TQDM_DISABLE='1')
def sweep(file, workers=2, env={}, **more):
    return subprocess.Popen([sys.executable, '-m', 'mtmt.cli', 'sweep', str(file), '--workers', str(workers)], start_new_session=True,
        text=True, env=ENV | env, **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | more)

def described(path, out, small_files, encoder, **more):
    "A sweep file over the small corpora"
    path.write_text(yaml.safe_dump(dict(out=str(out), targets={'files': ['sw']}, methods=['direct', 'tsl'], seeds=[0, 1],
        options=dict(data_dir=str(small_files), encoder=encoder, max_length=32, learning_rate=1e-3)) | more))
    return path

def results(out): return {f: (f.stat().st_mtime_ns, f.read_text()) for f in out.glob('*/run.json')}
def log(out):
    return [json.loads(l) for l in (out/'notebooks'/'log.jsonl').read_text().splitlines()] if (out/'notebooks'/'log.jsonl').exists() else []

def killed(file, out, wait, group, done=0, workers=2):
    "Start a sweep and kill it some time after a run has begun, with so many done; True if it came to that"
    begun, before = len(log(out)), results(out)
    p = sweep(file, workers, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and (sum(l['state'] == 'done' for l in log(out)) < done
        or [l['state'] for l in log(out)[begun:]][-1:] != ['started']):
        time.sleep(.1)
    try:
        p.wait(wait)
        assert p.returncode == 0
        return False
    except subprocess.TimeoutExpired: pass
    below = psutil.Process(p.pid).children(recursive=True)
    os.killpg(p.pid, signal.SIGKILL) if group else p.kill()
    p.wait()
    left = psutil.wait_procs(below, timeout=15)[1]
    assert not left, f'still at work: {left}'
    now = results(out)
    assert all(now[f] == x for f, x in before.items()), 'a run that was done was done again'
    return True

def finish(file, out, **more):
    "Start a sweep and let it end: its lines"
    before = results(out)
    stdout, stderr = (p := sweep(file, **more)).communicate()
    assert p.returncode == 0, stderr[-3000:]
    now = results(out)
    assert all(now[f] == x for f, x in before.items()) and recompute_all(out) == 0
    return stdout

def leaderboard(out):
    write_report(out)
    return (out/'report.csv').read_bytes()

def kept(out):
    "Every file of the runs, models and annotations, times and notes of who used what again aside"
    files = [f for pattern in ('*/predictions.conll', '*/probabilities.safetensors', '*/sentences.txt', '*/model/*', 'teachers/*/*', 'annotations/*')
        for f in out.glob(pattern) if f.is_file() and f.name not in ('mtmt.json', 'run.json')]
    same = {str(f.relative_to(out)): f.read_bytes() for f in files}
    scores = {f.parent.name: (r['f1'], r['signature'], r['teachers'], r['files']) for f in results(out) for r in [json.loads(f.read_text())]}
    return same, scores

@pytest.mark.slow
def test_the_surroundings_change_no_byte(small_files, tiny_encoder, tmp_path):
    "Two workers for one, methods in another order, another folder, hash seed, locale, time zone and number of threads"
    one, other = tmp_path/'one', tmp_path/'other'
    finish(described(tmp_path/'1.yaml', one, small_files, tiny_encoder, seeds=[0], methods=['direct', 'tsl', 'mtmt']), one,
        workers=1, env=dict(PYTHONHASHSEED='0', TZ='UTC', LC_ALL='C.UTF-8', OMP_NUM_THREADS='1'))
    finish(described(tmp_path/'2.yaml', other, small_files, tiny_encoder, seeds=[0], methods=['mtmt', 'tsl', 'direct']), other,
        cwd=tmp_path, env=dict(PYTHONHASHSEED='7', TZ='Asia/Kathmandu', LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8='0',
        OMP_NUM_THREADS='2'))
    (files, scores), (theirs, their_scores) = kept(one), kept(other)
    assert scores == their_scores and len(scores) == 3
    assert set(files) == set(theirs) and [f for f in files if files[f] != theirs[f]] == []
    assert leaderboard(one) == leaderboard(other)

def test_killed_twice(small_files, tiny_encoder, tmp_path):
    "The whole group killed in the first run, the parent alone in the second; the leaderboard is that of runs one by one"
    out, alone = tmp_path/'killed', tmp_path/'alone'
    file = described(tmp_path/'s.yaml', out, small_files, tiny_encoder, seeds=[0])
    chance = random.Random(0)
    assert killed(file, out, chance.uniform(1, 5), True, workers=1) and killed(file, out, chance.uniform(0, 3), False, done=1, workers=1)
    shown = on_a_terminal(file)
    assert '2 of 2 done' in shown and 'running for' in shown and 'done before' in shown
    assert len(json.loads((out/'summary.json').read_text())) == len(results(out)) == 2 and recompute_all(out) == 0 and not list(
        out.rglob('*.tmp'))
    for j in sweep_jobs(described(tmp_path/'a.yaml', alone, small_files, tiny_encoder, seeds=[0])): run(make_recipe(**j), lambda line: None)
    assert leaderboard(out) == leaderboard(alone)

def test_a_folder_that_is_removed_or_closed_is_one_line(small_files, tiny_encoder, tmp_path):
    "The folder of a sweep is removed under its hands; the same command begins again. /sys may not be written, even by root"
    out = tmp_path/'out'
    file = described(tmp_path/'s.yaml', out, small_files, tiny_encoder, methods=['direct'], seeds=[0])
    p = sweep(file, workers=1)
    while not log(out): time.sleep(.1)
    while out.exists(): shutil.rmtree(out, ignore_errors=True)
    said = p.communicate()[1]
    assert p.returncode == 2 and 'Traceback' not in said and said.splitlines()[-1].endswith(
        'log.jsonl: it is not there, or no longer; the same command continues with what is left')
    finish(file, out)
    closed = sweep(described(tmp_path/'c.yaml', '/sys/mtmt', small_files, tiny_encoder))
    said = closed.communicate()[1]
    assert closed.returncode == 2 and said.splitlines()[-1] == (
        '/sys/mtmt: you may not write there; name another folder: --out FOLDER, or -p out_dir FOLDER')

def on_a_terminal(file):
    "What a sweep shows on a terminal"
    ours, theirs = pty.openpty()
    p = sweep(file, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b''
    while True:
        try: shown += os.read(ours, 1 << 16)
        except OSError: break                         # the other side is closed
    os.close(ours)
    assert p.wait() == 0
    return shown.decode()

@pytest.mark.slow
@pytest.mark.parametrize('group', [True, False], ids=['group', 'parent'])
def test_killed_five_times(small_files, tiny_encoder, tmp_path, group):
    "Twelve runs, killed at five random moments: after so many runs, and some seconds into the next ones"
    out, peace = tmp_path/'killed', tmp_path/'peace'
    more = dict(methods=['direct', 'tsl'], seeds=[0, 1, 2, 3, 4, 5])
    chance = random.Random(7+group)
    file = described(tmp_path/'s.yaml', out, small_files, tiny_encoder, **more)
    for done in sorted(chance.sample(range(8), 5)): assert killed(file, out, chance.uniform(0, 6), group, done)
    there = len(results(out))
    said = finish(file, out)
    assert 0 < there < 12 and said.count('done before') <= there
    finish(described(tmp_path/'p.yaml', peace, small_files, tiny_encoder, **more), peace)
    assert len(results(out)) == 12 and leaderboard(out) == leaderboard(peace)
    again = finish(file, out)
    assert again.count('done before') == 12 and again.split('\n\n')[1:] == said.split('\n\n')[1:]

@pytest.mark.slow
def test_killed_fifty_times(small_files, tiny_encoder, tmp_path):
    "Killed whole, the parent alone, or one process below it, at any moment from the start: in the end every byte is that of a sweep left in peace"
    out, peace, chance = tmp_path/'killed', tmp_path/'peace', random.Random(50)
    more = dict(methods=['mtmt', 'tsl', 'direct'], seeds=list(range(8)))
    file = described(tmp_path/'s.yaml', out, small_files, tiny_encoder, **more)
    for number in range(50):
        before = results(out)
        p = sweep(file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(3, 14))
        below = psutil.Process(p.pid).children(recursive=True) if p.poll() is None else []
        if number % 3 == 0 and below:
            try: chance.choice(below).kill()
            except psutil.NoSuchProcess: pass
            time.sleep(1)
        if p.poll() is None: p.kill() if number % 3 == 1 else os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        left = psutil.wait_procs(below, timeout=20)[1]
        assert not left, f'kill {number}: still at work: {left}'
        now = results(out)
        assert all(now[f] == x for f, x in before.items()), f'kill {number}: a run that was done was done again'
    finish(file, out)
    finish(described(tmp_path/'p.yaml', peace, small_files, tiny_encoder, **more), peace)
    (files, scores), (theirs, their_scores) = kept(out), kept(peace)
    assert scores == their_scores and len(scores) == 24
    assert set(files) == set(theirs) and [f for f in files if files[f] != theirs[f]] == []
    assert leaderboard(out) == leaderboard(peace)
