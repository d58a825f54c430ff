"The experiment notebook as people run it: the papermill command, real processes, real files."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path

import nbformat
import psutil
import pytest

from conftest import ROOT, mtmt_here

NB = ROOT/'nbs'/'experiments'/'distill.ipynb'
def papermill(out, *args, cwd=ROOT):
    return subprocess.run([sys.executable, '-m', 'papermill', str(NB), str(out), '-k', 'python3', '--no-progress-bar', *map(str, args)],
        cwd=cwd, capture_output=True, text=True, env=dict(os.environ, HF_HUB_OFFLINE='1'))

def texts(path): return '\n'.join(str(o.get('text', '')) for c in nbformat.read(path, 4).cells for o in c.get('outputs', []))

def test_runs_from_any_folder_on_files_of_ones_own(small_files, tmp_path, tiny_encoder):
    out = tmp_path/'out.ipynb'
    done = papermill(out, '-p', 'benchmark', 'files', '-p', 'data_dir', small_files, '-p', 'target', 'sw', '-p', 'encoder', tiny_encoder,
        '-p', 'out_dir', tmp_path/'runs', '-y', 'options: {max_length: 32, weights: ab}', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    [run] = (tmp_path/'runs').glob('*/run.json')
    about = json.loads(run.read_text())
    assert about['recipe']['weights'] == 'ab' and about['signature'] in texts(out)
    mimes = {m for c in nbformat.read(out, 4).cells for o in c.get('outputs', []) for m in o.get('data', {})}
    assert {'image/svg+xml', 'text/html', 'application/json'} <= mimes

@pytest.mark.parametrize('args, message', [(('-p', 'lnag', 'nl'), "unknown parameter 'lnag'"),
    (('-p', 'method', 'mtml'), "Did you mean 'mtmt'"), (('-p', 'seed', 'one'), 'seed: '), (('-p', 'target', 'fr'), 'has no language'),
    (('-p', 'benchmark', 'wikiann', '-p', 'target', 'nl'),
        'pass data_dir: a folder that holds wikiann/')])
def test_refuses_wrong_parameters(tmp_path, args, message):
    done = papermill(tmp_path/'o.ipynb', '-p', 'out_dir', tmp_path/'runs', *args)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path/'runs').exists()

def test_parameters_have_types_and_help():
    from papermill import inspect_notebook
    found = inspect_notebook(str(NB))
    assert all(p['help'] and p['inferred_type_name'] not in (None, 'None') for p in found.values()) and {'benchmark', 'target', 'sources',
        'method', 'encoder', 'seed', 'data_dir', 'out_dir'} <= set(found)

def test_parameter_files_make_recipes():
    from mtmt.recipes import given_recipe
    files = sorted((NB.parent/'params').glob('*.yaml'))
    assert len(files) == 5
    for file in files:
        recipe = given_recipe([file])
        assert file.stem in (f'{recipe.benchmark}-{recipe.target}', 'translate-test', 'translate-train')
        beside = recipe.translated or recipe.translations
        assert not beside or Path(beside).parent == file.parent

def test_sweep_files_make_recipes():
    from mtmt.batch import sweep_jobs
    sizes = {f.stem: len(sweep_jobs(f)) for f in (NB.parent/'sweeps').glob('*.yaml')}
    assert sizes == dict(corpus=135, conll=45, wikiann=90, masakhaner2=300)

def test_a_batch_takes_up_where_it_stopped(tmp_path, tiny_encoder):
    args = [str(Path(sys.executable).parent/'mtmt'), 'batch', '--targets', 'sw', '--methods', 'direct,tsl', '--out', str(tmp_path/'b'),
        '-p', 'limit', '64', '-p', 'epochs', '1', '-p', 'encoder', tiny_encoder, '-p', 'max_length', '60']
    first = subprocess.run(args, capture_output=True, text=True, env=dict(os.environ, HF_HUB_OFFLINE='1'))
    assert first.returncode == 0, first.stderr[-2000:]
    summary = json.loads((tmp_path/'b'/'summary.json').read_text())
    assert [r['method'] for r in summary] == ['direct', 'tsl'] and {'benchmark', 'sources', 'target', 'method', 'encoder', 'seed',
        'precision', 'recall', 'f1', 'signature', 'seconds'} <= set(summary[0]) and all((tmp_path/'b'/r['notebook']).exists()
        for r in summary)
    again = mtmt_here(*args[1:])
    assert again.stdout.count('done before') == 2 and again.stdout.split('\n\n')[1:] == first.stdout.split('\n\n')[1:]

def test_a_run_that_fails_does_not_stop_the_batch(small_files, tmp_path, tiny_encoder):
    done = subprocess.run([str(Path(sys.executable).parent/'mtmt'), 'batch', '--targets', 'fr,sw', '--methods', 'direct', '--out',
        str(tmp_path/'b'), '-p', 'benchmark', 'files', '-p', 'data_dir', str(small_files), '-p', 'encoder', tiny_encoder],
        capture_output=True, text=True, env=dict(os.environ, HF_HUB_OFFLINE='1'))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    [failed] = (tmp_path/'b'/'notebooks').glob('files-fr-direct-s0-*.failed.json')
    about = json.loads(failed.read_text())
    assert f'{about["run"]}: DataError: ' in done.stderr and 'no file fr.train.conll' in done.stderr
    assert [r['target'] for r in json.loads((tmp_path/'b'/'summary.json').read_text())] == ['sw']
    assert (failed.parent/f'{about["run"]}.ipynb').exists()
    assert (about['status'], about['error'], about['recipe']['target']) == ('failed', 'DataError',
        'fr') and 'no file fr.train.conll' in about['message'] and about['seconds'] > 0
    said = mtmt_here('table', tmp_path/'b').stdout
    assert f'failed: {about["run"]} (DataError: ' in said
    for f in list(small_files.glob('sw.*')): (small_files/f.name.replace('sw', 'fr')).write_text(f.read_text())
    again = mtmt_here(*done.args[1:])
    assert again.returncode == 0 and again.stdout.count('done before') == 1 and not failed.exists() and 'failed' not in again.stdout

def test_another_system_is_scored_beside_the_runs(small_files, tmp_path, tiny_encoder):
    options = ['--target', 'sw', '-p', 'benchmark', 'files', '-p', 'data_dir', small_files]
    rows = [s.split('\n') for s in (small_files/'sw.test.conll').read_text().split('\n\n') if s.strip()]
    (tmp_path/'said.conll').write_text('\n\n'.join('\n'.join(l.replace('B-LOC', 'B-GPE') for l in s if l) for s in rows)+'\n')
    scored = mtmt_here('score', tmp_path/'said.conll', '--name', 'perfect', '--out', tmp_path/'b', '--map', 'GPE=LOC', *options)
    assert scored.returncode == 0, scored.stderr
    batch = mtmt_here('batch', '--targets', 'sw', '--methods', 'direct', '--out', tmp_path/'b', '-p', 'encoder', tiny_encoder,
        *options[2:])
    assert batch.returncode == 0, batch.stderr[-2000:]
    both = mtmt_here('table', tmp_path/'b').stdout
    assert ' '.join(both.split('|')[1:4]).split() == ['target', 'direct', 'perfect'] and '| 100.0' in both and 'tgt:sw' in both
    assert mtmt_here('score', tmp_path/'said.conll', '--name', 'tsl', *options).returncode == 2

def test_ctrl_c_leaves_nothing_running(tmp_path):
    "Interrupted while a recognizer learns: no kernel goes on, and the message says how to"
    # what runs in the background of a shell has SIGINT ignored
    batch = subprocess.Popen([str(Path(sys.executable).parent/'mtmt'), 'batch', '--targets', 'sw', '--methods', 'direct,tsl',
        '--out', str(tmp_path/'b')], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ, HF_HUB_OFFLINE='1'), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not (tmp_path/'b'/'.locks').exists() and batch.poll() is None: time.sleep(1)
    below = psutil.Process(batch.pid).children(recursive=True)
    assert len(below) >= 4
    os.killpg(batch.pid, signal.SIGINT)
    try: _, error = batch.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        [p.kill() for p in [*below, psutil.Process(batch.pid)] if p.is_running()]
        raise
    assert batch.returncode == 130 and 'the same command continues from here' in error and not psutil.wait_procs(below, timeout=20)[1]

@pytest.mark.slow
@pytest.mark.parametrize('benchmark, target', [('wikiann', 'nl'), ('aqmar', 'ar'), ('hiner', 'hi'), ('uner', 'zh'), ('masakhaner2', 'sw')])
def test_real_data(real_data, tmp_path_factory, benchmark, target):
    "The command of the README on public corpora, shortened"
    tmp = tmp_path_factory.getbasetemp()
    done = papermill(tmp/f'{benchmark}.ipynb', '-p', 'benchmark', benchmark, '-p', 'target', target, '-p', 'method', 'mtmt', '-p',
        'data_dir', real_data, '-p', 'out_dir', tmp/'real-runs', '-p', 'limit', 2000, '-p', 'epochs', 1)
    assert done.returncode == 0, done.stderr[-2000:]

def test_a_target_without_a_test_set_is_trained_and_shown(small_files, tmp_path, tiny_encoder):
    "The notebook runs to its end, the batch says so, and no table has the run"
    from mtmt.batch import batch_jobs, run_jobs
    (small_files/'sw.test.conll').unlink()
    jobs = batch_jobs(['sw'], ['tsl'], [0], str(tmp_path/'runs'), benchmark='files', sources='en', data_dir=str(small_files), encoder=tiny_encoder,
        epochs=1, max_length=32)
    assert run_jobs(jobs, 1) == []
    made, = (tmp_path/'runs').glob('files-sw-tsl-*')
    assert (made/'model').is_dir()

@pytest.mark.parametrize('given, said', [
    (['--methods', 'direct,mtm'], r"argument --methods: unknown method 'mtm'; there are direct, .*\. Did you mean mtmt\?"),
    (['--seeds', '0,x'], "argument --seeds: 'x': give whole numbers, with commas"),
    (['--limit', '500'], 'unrecognized arguments: --limit 500; a parameter of a recipe is given with -p: -p limit 500')])
def test_a_wrong_argument_is_told_before_torch_is_loaded(given, said):
    code = 'import sys; from mtmt.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as e: print(e.code, "torch" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code, 'batch', '--targets', 'sw', *given], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == '2 False\n' and re.search(said+'\n$', done.stderr), done.stderr

def test_a_reader_that_has_enough_is_no_error():
    "As in `mtmt table FOLDER | head -1`; the pipe is closed before anything is written"
    read, write = os.pipe()
    os.close(read)
    folder = ROOT/'data'/'lesson_run'
    done = subprocess.run([sys.executable, '-m', 'mtmt.cli', 'table', folder], stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, '')
