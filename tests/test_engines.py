"Engines: a Ray cluster of three simulated machines with GPUs that are not there, one of them lost in the middle of a run."
import json, os, time
from importlib.util import find_spec

import pytest

from conftest import ROOT
from mtmt.batch import run_jobs
from mtmt.engines import ENGINES
from mtmt.report import write_report

needs_ray = pytest.mark.skipif(not find_spec('ray'), reason='the package ray is not installed: pip install "mtmt[ray]"')

def log(out):
    return [json.loads(l) for l in (out/'notebooks'/'log.jsonl').read_text().splitlines()] if (out/'notebooks'/'log.jsonl').exists() else []
def jobs(out, small_files, encoder):
    return [dict(benchmark='files', data_dir=str(small_files), encoder=encoder, target='sw', method=m, seed=s, out_dir=str(out),
        max_length=32, learning_rate=1e-3) for s in (0, 1) for m in ('direct', 'tsl')]

@pytest.fixture
def cluster(monkeypatch):
    "A head that computes nothing, and three machines with a core and a GPU each"
    for k, v in dict(RAY_USAGE_STATS_ENABLED='0', HF_HUB_OFFLINE='1',
        PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])).items():
        monkeypatch.setenv(k, v)
    from ray.cluster_utils import Cluster
    c = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, num_gpus=0, include_dashboard=False))
    c.workers = [c.add_node(num_cpus=1, num_gpus=1) for _ in range(3)]
    yield c
    c.shutdown()

@pytest.mark.slow
@needs_ray
def test_a_lost_machine(cluster, small_files, tiny_encoder, tmp_path):
    "A machine dies with a run on it: that run starts again on another, all are done, and the leaderboard is the local engine's"
    from threading import Thread
    out, local, lost = tmp_path/'ray', tmp_path/'local', {}
    def kill():
        while not (begun := [l for l in log(out) if l['state'] == 'started']): time.sleep(.2)
        lost.update(begun[0])
        time.sleep(2)
        cluster.remove_node(next(n for n in cluster.workers if n.node_id.startswith(lost['where'].split()[1])), allow_graceful=False)
    killer = Thread(target=kill, daemon=True)
    killer.start()
    rows = run_jobs(jobs(out, small_files, tiny_encoder), engine='ray', address=cluster.address)
    killer.join(5)
    assert lost and not killer.is_alive()
    starts = [l['where'] for l in log(out) if (l['run'], l['state']) == (lost['run'], 'started')]
    assert starts[0] == lost['where'] and len(starts) >= 2 and lost['where'] not in starts[1:]
    done = {l['run']: l['where'] for l in log(out) if l['state'] == 'done'}
    assert len(rows) == len(done) == 4 and lost['where'] not in done.values() and all(r['status'] == 'done' for r in rows)
    run_jobs(jobs(local, small_files, tiny_encoder))
    for folder in (out, local): write_report(folder)
    assert (out/'report.csv').read_bytes() == (local/'report.csv').read_bytes()
    before = {f: f.stat().st_mtime_ns for f in out.glob('*/run.json')}
    assert run_jobs(jobs(out, small_files, tiny_encoder), engine='ray',
        address=cluster.address) == rows and {f: f.stat().st_mtime_ns for f in before} == before

@pytest.mark.slow
@needs_ray
def test_a_failed_run_is_said(cluster, small_files, tiny_encoder, tmp_path):
    "An error on a machine of the cluster comes back as text, and the others are done"
    from mtmt.data import MtmtError
    wrong = [j | dict(target='fr') if j['seed'] else j for j in jobs(tmp_path/'x', small_files, tiny_encoder)]
    with pytest.raises(MtmtError, match='no file fr.train.conll'): run_jobs(wrong, engine='ray', address=cluster.address)
    assert len(json.loads((tmp_path/'x'/'summary.json').read_text())) == 2 and len(
        list((tmp_path/'x').glob('notebooks/*.failed.json'))) == 2

def test_without_ray_it_says_what_to_do():
    if find_spec('ray'): pytest.skip('ray is installed here')
    from mtmt.data import MtmtError
    with pytest.raises(MtmtError, match=r'pip install "mtmt\[ray\]"'): next(ENGINES['ray']({}))
