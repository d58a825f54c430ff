"An encoder in four bits: no loss on the way, nothing half-written, nothing changed unnoticed."
import multiprocessing, os, random, shutil, subprocess, sys, time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file

from conftest import ROOT
from mtmt.corpus import shipped
from mtmt.data import file_hash
from mtmt.encoders import encoder_path, load_encoder, load_tokenizer
from mtmt.packing import PACKED, SUMS, PackingError, pack, quantized, restored, unpacked

FORK = multiprocessing.get_context('fork')
PLAIN = ('config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json')

@pytest.fixture
def packed(tmp_path): return Path(shutil.copytree(shipped('data/encoder'), tmp_path/'packed'))

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Hash of each file of the unpacked encoder"
    folder = unpacked(shipped('data/encoder'), tmp_path_factory.mktemp('whole'))
    return {name: file_hash(folder/name) for name in PLAIN}

def hashes(folder): return {name: file_hash(folder/name) for name in PLAIN}

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1e-8, 1e-3, 1., 1e4]))
def test_rounding_twice_is_rounding_once(seed, rows, blocks, size):
    weight = torch.randn(rows, 32*blocks, generator=torch.Generator().manual_seed(seed))*size
    weight[0, :32] = 0
    numbers, scales = quantized(weight)
    once = restored(numbers, scales)
    again = quantized(once)
    assert numbers.dtype == torch.uint8 and numbers.shape == (rows, 16*blocks) and scales.shape == (rows, blocks)
    assert torch.equal(restored(*again), once)
    # a step is an eighth of the largest weight of a block; scales far below the smallest of half precision are lost
    largest = weight.view(rows, blocks, 32).abs().amax(-1)
    assert ((once-weight).view(rows, blocks, 32).abs().amax(-1) <= largest/8*1.01+1e-6).all()

def test_numbers_on_a_hand_made_block():
    weight = torch.zeros(1, 32)
    weight[0, :4] = torch.tensor([-8., 7., 3., -1.])
    numbers, scales = quantized(weight)
    assert scales.item() == 1 and torch.equal(restored(numbers, scales), weight)
    # the first half of a block in the low bits, the second in the high ones
    assert numbers[0, :4].tolist() == [0 | 8 << 4, 15 | 8 << 4, 11 | 8 << 4, 7 | 8 << 4]

def test_packing_an_encoder_that_was_in_four_bits_changes_nothing(tmp_path, packed):
    weights = {}
    stored = load_file(packed/PACKED)
    for key, tensor in stored.items():
        name, _, part = key.rpartition('.')
        if part == 'numbers': weights[name] = restored(tensor, stored[f'{name}.scales'])
        elif part != 'scales': weights[key] = tensor
    (tmp_path/'plain').mkdir()
    save_file(weights, tmp_path/'plain'/'model.safetensors')
    for name in PLAIN[2:]+PLAIN[:1]: shutil.copy(packed/name, tmp_path/'plain')
    assert pack(tmp_path/'plain', tmp_path/'again') == 0
    assert (tmp_path/'again'/SUMS).read_text() == (packed/SUMS).read_text()

def test_it_fits_its_size_and_can_be_checked_without_this_kit(packed):
    assert sum(path.stat().st_size for path in packed.iterdir()) < 45e6
    assert subprocess.run(['sha256sum', '-c', SUMS], cwd=packed, capture_output=True).returncode == 0

def test_unpacking_that_is_killed_leaves_nothing_or_a_whole_model(tmp_path, packed, whole):
    started = time.time()
    unpacked(packed, tmp_path/'once')
    took = time.time()-started
    random.seed(0)
    killed, cache = 0, tmp_path/'cache'
    for moment in [took*random.random()**2 for _ in range(10)]:   # squared: early ones, should later runs be faster than the first
        process = FORK.Process(target=unpacked, args=(packed, cache))
        process.start()
        process.join(moment)
        process.kill()   # no error if it has ended
        process.join()
        folders = [path for path in cache.glob('encoder-*')] if cache.exists() else []
        assert all(hashes(folder) == whole for folder in folders)
        killed += not folders
        for folder in folders: shutil.rmtree(folder)
    assert killed >= 3
    folder = unpacked(packed, cache)
    assert hashes(folder) == whole
    assert not [path for path in cache.iterdir() if path.name.endswith('.tmp')]

def test_processes_that_unpack_at_once_do_not_disturb_each_other(tmp_path, packed, whole):
    processes = [FORK.Process(target=unpacked, args=(packed, tmp_path/'cache')) for _ in range(3)]
    for process in processes: process.start()
    for process in processes: process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert hashes(unpacked(packed, tmp_path/'cache')) == whole

@pytest.mark.parametrize('name', [PACKED, 'tokenizer.json', 'config.json', SUMS])
def test_a_changed_byte_is_refused_with_one_line(tmp_path, packed, name):
    raw = bytearray((packed/name).read_bytes())
    raw[len(raw)//2] ^= 1
    (packed/name).write_bytes(raw)
    with pytest.raises(PackingError, match='not the file that was packed') as e: unpacked(packed, tmp_path/'cache')
    assert '\n' not in str(e.value) and not (tmp_path/'cache').exists()

def test_a_damaged_cache_is_made_again(tmp_path, packed, whole):
    folder = unpacked(packed, tmp_path/'cache')
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:-5]), lambda path: path.unlink()):
        spoil(folder/'model.safetensors')
        assert hashes(unpacked(packed, tmp_path/'cache')) == whole

def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path, packed):
    (tmp_path/'cache').write_text('a file in the place of a folder')
    with pytest.raises(PackingError, match='HF_HOME'): unpacked(packed, tmp_path/'cache')

def test_a_packed_folder_is_an_encoder_like_any_other(packed):
    model, tokenizer = load_encoder(str(packed)), load_tokenizer(str(packed))
    assert Path(encoder_path(str(packed))) == Path(encoder_path('embedded'))
    assert model.config.vocab_size == len(tokenizer) and model.config.num_hidden_layers == 12
    assert tokenizer.tokenize('Wangari anaishi Nairobi') == load_tokenizer('embedded').tokenize('Wangari anaishi Nairobi')

@pytest.mark.slow
def test_a_wheel_outside_the_clone_trains_and_tags(tmp_path):
    "Installed without the clone and without a network: the corpus, the encoder and the notebook are in the package"
    (tmp_path/'build.cfg').write_text(f'[build]\nbuild_base={tmp_path/"build"}\n')     # nothing is left in the clone
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', tmp_path/'wheel', ROOT],
        check=True, env=os.environ | dict(DIST_EXTRA_CONFIG=str(tmp_path/'build.cfg')))
    wheel, = (tmp_path/'wheel').glob('*.whl')
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', tmp_path/'site', wheel], check=True)
    (tmp_path/'work').mkdir()
    command = [sys.executable, '-m', 'mtmt.cli', 'batch', '--targets', 'sw', '--methods', 'tsl', '--out', 'runs/mine',
        '-p', 'limit', '40', '-p', 'epochs', '1']
    done = subprocess.run(command, cwd=tmp_path/'work', capture_output=True, text=True, env=os.environ | dict(
        PYTHONPATH=str(tmp_path/'site'), HF_HOME=str(tmp_path/'home'), HF_HUB_OFFLINE='1'))
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'corpus, en to each target' in done.stdout and list((tmp_path/'work'/'runs'/'mine'/'notebooks').glob('*.ipynb'))
    assert list((tmp_path/'home'/'mtmt').glob('encoder-*'))
