"One run on two processes, by the real torchrun: the same losses and the same weights as on one."
import json, os, subprocess, sys

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from conftest import ROOT

def command(*args):
    return dict(args=[str(a) for a in args], cwd=ROOT, capture_output=True, text=True,
        env=dict(os.environ, HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)))
def torchrun(n, *args):
    return subprocess.run(**command(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', n, '-m',
        'mtmt.cli', *args))
def alone(*args): return subprocess.run(**command(sys.executable, '-m', 'mtmt.cli', *args))

@pytest.fixture(scope='module')
def steady_encoder(tiny_encoder, tmp_path_factory):
    "The tiny encoder without dropout, whose chance would fall differently on two processes"
    folder = tmp_path_factory.mktemp('steady')
    config = AutoConfig.from_pretrained(tiny_encoder, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    AutoModel.from_pretrained(tiny_encoder, config=config, add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return str(folder)

def parameters(small_files, encoder, out, method, **more):
    given = dict(benchmark='files', data_dir=str(small_files), target='sw', method=method, encoder=encoder, out_dir=str(out),
        learning_rate=1e-3, options=dict(max_length=32, precision='fp32') | more)
    (out.parent/f'{out.name}.yaml').write_text(json.dumps(given))
    return ['run', '-f', out.parent/f'{out.name}.yaml']

def made(out):
    "Models of a folder by name: log and weights"
    return {f.parent.relative_to(out).as_posix(): (json.loads(f.read_text())['log'], load_file(f.parent/'trained.safetensors'))
        for f in sorted(out.rglob('mtmt.json'))}

def equal_models(out, other):
    one, two = made(out), made(other)
    assert one and list(one) == list(two)
    for name in one:
        losses = [[{k: v for k, v in l.items() if 'loss' in k or k in ('recognition', 'similarity', 'alignment', 'self_training', 'eval_f1',
            'learning_rate')} for l in m[name][0]] for m in (one, two)]
        assert len(losses[0]) == len(losses[1]) and any('loss' in l for l in losses[0])
        for a, b in zip(*losses): assert a.keys() == b.keys() and all(abs(a[k]-b[k]) < 1e-4 for k in a), (name, a, b)
        worst = max((one[name][1][k]-two[name][1][k]).abs().max().item() for k in one[name][1])
        assert worst < 1e-3, (name, worst)
    return one

slow = pytest.mark.slow
@pytest.mark.parametrize('method, more', [pytest.param('mtmt', dict(batch_size=8), id='mtmt'),
    pytest.param('tsl', dict(batch_size=7), id='tsl', marks=slow), pytest.param('prokd', dict(batch_size=5), id='prokd', marks=slow),
    pytest.param('mtmt', dict(pairs_from='corpus', corpus_pairs=40, batch_size=6, teacher_cache=False), id='corpus-pairs', marks=slow),
    pytest.param('tsl', dict(batch_size=1, limit=6), id='one-window', marks=slow)])
def test_two_processes_learn_what_one_learns(small_files, steady_encoder, tmp_path, method, more):
    "Teachers and student: each epoch's loss within 1e-4, the weights within a step or so, the same predictions under the same name"
    first = alone(*parameters(small_files, steady_encoder, tmp_path/'one', method, **more))
    assert first.returncode == 0, first.stderr[-2000:]
    second = torchrun(2, *parameters(small_files, steady_encoder, tmp_path/'two', method, **more))
    assert second.returncode == 0, second.stderr[-3000:]
    models = equal_models(tmp_path/'one', tmp_path/'two')
    assert len(models) == (3 if method == 'mtmt' else 2)
    a, b = ([json.loads(f.read_text()) for f in (tmp_path/x).glob('*/run.json')] for x in ('one', 'two'))
    assert len(a) == len(b) == 1 and a[0]['run'] == b[0]['run'] and a[0]['signature'] == b[0]['signature'] and (a[0]['processes'],
        b[0]['processes']) == (1, 2)
    assert second.stdout.count('Entity F1') == 1 and not list(tmp_path.rglob('*.tmp')) and not list(tmp_path.rglob('*.checkpoints'))

@slow
def test_a_second_start_finds_the_run_done(small_files, steady_encoder, tmp_path):
    first, again = (torchrun(2, *parameters(small_files, steady_encoder, tmp_path/'runs', 'direct', epochs=1)) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr[-2000:]
    assert 'done before' not in first.stdout and again.stdout.count('done before') == 1

def test_an_error_is_said_once(small_files, steady_encoder, tmp_path):
    done = torchrun(2, *parameters(small_files, steady_encoder, tmp_path/'x', 'tsl')[:3], '-p', 'target', 'fr')
    assert done.returncode and done.stderr.count('no file fr.train.conll') == 1
