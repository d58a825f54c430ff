"An exported model is a plain transformers model, and tags as the run did."
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForTokenClassification, pipeline

from mtmt.cli import main
from mtmt.data import MtmtError, file_hash
from mtmt.export import export_model, model_of
from mtmt.recipes import make_recipe
from mtmt.records import read_predictions, read_record
from mtmt.runs import run

@pytest.fixture(scope='module')
def vote(shared, tiny_encoder):
    files, out = shared
    return Path(out)/run(make_recipe(benchmark='files', data_dir=str(files), target='sw', encoder=tiny_encoder, out_dir=str(out),
        max_length=32, epochs=1, method='direct', sources='en,de', teacher_per_source=True))['run']

@pytest.fixture(scope='module', params=['tsl', 'direct'])
def a_run(request, shared, tiny_encoder):
    files, out = shared
    return Path(out)/run(make_recipe(benchmark='files', data_dir=str(files), target='sw', encoder=tiny_encoder, out_dir=str(out),
        max_length=32, learning_rate=3e-3, epochs=2, method=request.param, sources='en'))['run']

def test_the_export_tags_as_the_run_predicted(a_run, tmp_path):
    folder = export_model(a_run, tmp_path/'model')
    tagger = pipeline('token-classification', str(folder), ignore_labels=[])
    words, predictions = read_predictions(a_run)
    stored = list(predictions.values())[-1]
    assert any(tag != 'O' for tags in stored for tag in tags)
    for sentence, tags in zip(words, stored):
        text = ' '.join(sentence)
        begins = [len(' '.join(sentence[:n]))+(n > 0) for n in range(len(sentence))]
        first = {piece['start']: piece['entity'] for piece in tagger(text)}
        assert [first[begin] for begin in begins] == tags

def test_the_export_is_whole_and_the_run_is_as_it_was(a_run, tmp_path):
    before = {path: file_hash(path) for path in a_run.rglob('*') if path.is_file()}
    assert main(['export', str(a_run), str(tmp_path/'model')]) == 0
    model = AutoModelForTokenClassification.from_pretrained(tmp_path/'model')
    ours = model_of(a_run).encoder.model
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), ours.state_dict().values(), strict=True))
    assert {path: file_hash(path) for path in a_run.rglob('*') if path.is_file()} == before
    assert not [path for path in tmp_path.iterdir() if path.name != 'model']

def test_the_card_says_what_the_record_says(a_run, tmp_path):
    text, about = (export_model(a_run, tmp_path/'model')/'README.md').read_text(), read_record(a_run)
    header = yaml.safe_load(text.split('---')[1])
    assert header['language'] == ['sw'] and header['pipeline_tag'] == 'token-classification'
    assert about['signature'] in text and f'| all | {100*about["f1"]:.1f} |' in text and all(note in text for note in about['notes'])

def test_what_cannot_be_exported_is_said(a_run, vote, shared, tmp_path):
    (tmp_path/'there').mkdir()
    with pytest.raises(MtmtError, match='is there already'): export_model(a_run, tmp_path/'there')
    with pytest.raises(MtmtError, match='no single model'): export_model(vote, tmp_path/'vote')
    with pytest.raises(MtmtError): export_model(shared[1], tmp_path/'no-run')
    assert [path.name for path in tmp_path.iterdir()] == ['there']

def test_a_run_of_the_embedded_encoder_is_small(tmp_path):
    "The weights of a student, its predictions and its record: 60 MB at most"
    about = run(make_recipe(method='tsl', target='sw', limit=10, dev_limit=10, epochs=1, out_dir=str(tmp_path)))
    size = lambda folder: sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())/1e6
    assert size(tmp_path/about['run']) < 60
    assert all(size(folder) < 60 for folder in (tmp_path/'teachers').iterdir())

def test_an_onnx_file_tags_as_the_model_and_a_refused_one_is_gone(a_run, tmp_path):
    pytest.importorskip('onnxruntime')
    from mtmt.runtimes import export_onnx
    from mtmt.tagger import Tagger, TextError
    folder = export_model(a_run, tmp_path/'model')
    with pytest.raises(MtmtError, match='no such file; write one with write_onnx'): Tagger.load(folder, runtime='int8')
    table = export_onnx(a_run, folder)
    assert table.lang.tolist() == ['sw'] and (table.equal_tags == 100).all() and '## model.onnx' in (folder/'README.md').read_text()
    texts = ['Amina aliona katika Kano leo', 'Kofi na Juma']
    torch, onnx = (Tagger.load(folder, runtime=runtime)(texts) for runtime in ('torch', 'onnx'))
    assert [[(e.text, e.type) for e in t.entities] for t in torch] == [[(e.text, e.type) for e in t.entities] for t in onnx]
    assert Tagger.load(folder, runtime='onnx').lang == 'sw'
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(MtmtError, match=r'points of F1 lost, more than -1000: sw'): export_onnx(a_run, folder, int8=True, most=-1000)
    assert sorted(p.name for p in folder.iterdir()) == before
    with pytest.raises(TextError, match="runtime: 'tensorrt' is not a choice"): Tagger.load(folder, runtime='tensorrt')
