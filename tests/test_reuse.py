"What is reused is what was asked for: change one input, and the name and the result change; change what does not matter, and nothing does."
import json, os, re, shutil, subprocess, sys
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import mtmt
from conftest import mtmt_here, sentences, write
from mtmt import workshop
from mtmt.data import tag_names
from mtmt.recipes import CHOICES, Corpora, Recipe
from mtmt.records import read_probabilities, read_record, read_runs
from mtmt.runs import _PLACES, choose, planned_runs, run
from mtmt.selection import Refinement
from mtmt.teachers import Annotations, flat
from mtmt.workshop import load_materials
from test_runs import recipe

@pytest.fixture
def encoder(tiny_encoder, tmp_path):
    "A copy of the tiny encoder that a test may change"
    return shutil.copytree(tiny_encoder, tmp_path/'encoder')

def edited(path, old, new):
    "Replace the first occurrence in a file"
    text = path.read_text(encoding='utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding='utf-8')

def edited_json(path, change):
    "Change a JSON file in place"
    content = json.loads(path.read_text(encoding='utf-8'))
    change(content)
    path.write_text(json.dumps(content), encoding='utf-8')

def shuffled_vocabulary(content):
    "Exchange two words of a vocabulary"
    vocabulary = content['model']['vocab']
    vocabulary['Kano'], vocabulary['saw'] = vocabulary['saw'], vocabulary['Kano']

def another_weight(encoder):
    "Change one number of an encoder"
    weights = load_file(encoder/'model.safetensors')
    weights['encoder.layer.0.output.dense.weight'][0, 0] += 1
    save_file(weights, encoder/'model.safetensors', {'format': 'pt'})

CHANGES = {
    'word of a source': lambda files, encoder: edited(files/'en.train.conll', 'Kano', 'Oslo'),
    'tag of a source': lambda files, encoder: edited(files/'en.train.conll', 'B-LOC', 'B-PER'),
    # without an entity in it no epoch is better than the first
    'tags of a dev set': lambda files, encoder: (files/'en.dev.conll').write_text(
        re.sub('[BI]-(LOC|PER)', 'O', (files/'en.dev.conll').read_text())),
    'word of the raw target': lambda files, encoder: edited(files/'sw.train.conll', 'Amina', 'Kofi'),
    'word of the test': lambda files, encoder: edited(files/'sw.test.conll', 'Kano', 'Oslo'),
    'tag of the test': lambda files, encoder: edited(files/'sw.test.conll', 'B-LOC', 'B-PER'),
    'weight of the encoder': lambda files, encoder: another_weight(encoder),
    'vocabulary of the encoder': lambda files, encoder: edited_json(encoder/'tokenizer.json', shuffled_vocabulary),
    'configuration of the encoder': lambda files, encoder: edited_json(encoder/'config.json',
        lambda c: c.update(num_attention_heads=4)),
}

def result(out, record):
    "All numbers of a run: the probabilities of each system, and the scores"
    _, probabilities = read_probabilities(out/record['run'])
    return {name: p.tolist() for name, p in probabilities.items()}, record['types']

@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_another_input_is_another_run(small_files, tmp_path, encoder, change):
    "One input changes: the run gets another name and another result, in the same folder as the first"
    out = tmp_path/'runs'
    asked = recipe(small_files, out, str(encoder), 'mtmt', learning_rate=7e-4, epochs=3)
    first = run(asked)
    assert planned_runs([asked]) == [first['run']]
    change(small_files, encoder)
    assert planned_runs([asked]) != [first['run']]
    second = run(asked)
    assert second['run'] != first['run'] and result(out, second) != result(out, first)
    both = read_runs(out)
    assert [r['run'] for r in both.rows] == [second['run']]
    assert len(both.left_out) == 1 and f'{first["run"]}: left out, {second["run"]} is newer' in both.left_out[0]

OTHER_VALUES = dict(target='de', sources=('de',), weights='ab', tasks=('recognition',), method='mtmt-gamma', benchmark='wikiann',
    source_benchmark='files', other_labels=('X=PER',), keep_share=.5, similarity_weight=.3, rounds_renew=('choice',))

def other_value(name):
    "Another valid value of an option"
    if name in OTHER_VALUES: return OTHER_VALUES[name]
    now = getattr(Recipe(), name)
    if name in CHOICES: return next(c for c in CHOICES[name] if c != now)
    return not now if isinstance(now, bool) else now+1 if isinstance(now, int) else now+.125

def test_every_option_is_part_of_the_name(small_files, tmp_path, tiny_encoder):
    "Each option in turn, those that came later too: another value is another name, even one that changes nothing here"
    shutil.copytree(small_files, tmp_path/'all'/'wikiann')
    for f in (tmp_path/'all'/'wikiann').iterdir(): shutil.copy(f, tmp_path/'all')
    for lang in ('de',): shutil.copy(tmp_path/'all'/'sw.test.conll', tmp_path/'all'/f'{lang}.test.conll')
    base = replace(recipe(small_files, tmp_path, tiny_encoder, 'mtmt'), data_dir=str(tmp_path/'all'), precision='fp32')
    options = [f.name for f in fields(Recipe) if f.name not in _PLACES and f.name != 'allow_target_labels']
    others = [replace(base, **{name: 'bf16' if name == 'precision' else other_value(name)}) for name in options]
    names = planned_runs([base, *others])
    wrong = [name for name, planned in zip(options, names[1:]) if planned in (None, names[0])]
    assert not wrong and len(set(names)) == len(names)

def test_kit_code_and_libraries_are_part_of_the_name(small_files, tmp_path, tiny_encoder, monkeypatch):
    asked = recipe(small_files, tmp_path, tiny_encoder, 'mtmt')
    names = planned_runs([asked])
    with monkeypatch.context() as m:
        m.setattr(mtmt, '__version__', '9.9')
        names += planned_runs([asked])
    with monkeypatch.context() as m:
        code = workshop._modules_of('runs')
        m.setattr(workshop, '_modules_of', lambda name: code | dict(losses=code['losses']+'x'))
        names += planned_runs([asked])
    with monkeypatch.context() as m:
        m.setattr(workshop, 'version', lambda package: '0' if package == 'tokenizers' else '1')
        names += planned_runs([asked])
    assert len(set(names)) == 4 and planned_runs([asked]) == names[:1]

def test_gold_tags_of_the_target_are_part_of_the_name_where_they_are_read(small_files, tmp_path, tiny_encoder):
    plain = recipe(small_files, tmp_path, tiny_encoder, 'mtmt')
    oracle = replace(plain, pair_balance='gold', allow_target_labels=True)
    before = planned_runs([plain, oracle])
    edited(small_files/'sw.train.conll', 'B-LOC', 'B-PER')
    after = planned_runs([plain, oracle])
    assert after[0] == before[0] and after[1] != before[1]

def test_what_does_not_matter_changes_nothing(small_files, tmp_path, tiny_encoder):
    "Other places of data, encoder and project, another device name, a run folder that was moved: used again, bit by bit the same"
    first = run(recipe(small_files, tmp_path/'here', tiny_encoder, 'mtmt'))
    shutil.copytree(small_files, tmp_path/'moved files')
    shutil.copytree(tiny_encoder, tmp_path/'moved encoder')
    shutil.move(tmp_path/'here', tmp_path/'there')
    said = []
    elsewhere = recipe(tmp_path/'moved files', tmp_path/'there', str(tmp_path/'moved encoder'), 'mtmt', device='auto')
    assert run(elsewhere, said.append) == first and said[-1] == f'{first["run"]}: done before'
    fresh = run(replace(elsewhere, out_dir=str(tmp_path/'fresh')))
    assert fresh['run'] == first['run'] and result(tmp_path/'fresh', fresh) == result(tmp_path/'there', first)

def test_a_teacher_of_other_tags_is_another_teacher(small_files, tmp_path, tiny_encoder):
    "WikiAnn's order of types, then one's own files in alphabetical order: the recognizer's columns were read as other tags"
    named = tmp_path/'named'
    shutil.copytree(small_files, named/'wikiann')
    for f in (named/'wikiann').iterdir(): f.write_text(f.read_text()+'\nOslo\tB-ORG\nUnion\tI-ORG\n')
    shutil.copytree(named/'wikiann', tmp_path/'own')
    more = dict(learning_rate=3e-3, epochs=12)
    first = run(recipe(named, tmp_path/'runs', tiny_encoder, 'direct', benchmark='wikiann', **more))
    again = run(recipe(tmp_path/'own', tmp_path/'runs', tiny_encoder, 'direct', **more))
    alone = run(recipe(tmp_path/'own', tmp_path/'alone', tiny_encoder, 'direct', **more))
    assert not again['reused'] and again['f1'] == alone['f1'] and min(first['f1'], again['f1']) > .5

def test_a_batch_notices_what_changed_and_adds_to_its_folder(small_files, tmp_path, tiny_encoder):
    "A changed test file is scored anew; a second batch keeps the first one's runs; its option becomes part of the name"
    batch = ['batch', '--targets', 'sw', '--methods', 'direct', '--out', tmp_path/'b', '-p', 'benchmark', 'files', '-p', 'data_dir',
        small_files, '-p', 'encoder', tiny_encoder, '-p', 'max_length', 32, '-p', 'learning_rate', '3e-3', '-p', 'epochs', 8]
    first = mtmt_here(*batch)
    assert first.returncode == 0, first.stderr[-2000:]
    again = mtmt_here(*batch)
    assert again.stdout.count('done before') == 1 and again.stdout.split('\n\n')[1:] == first.stdout.split('\n\n')[1:]
    test = small_files/'sw.test.conll'
    before = test.read_text()
    test.write_text(before.replace('B-LOC', 'B-PER'))
    changed = mtmt_here(*batch)
    assert 'done before' not in changed.stdout
    scores = {r['run']: r['f1'] for r in map(read_record, (f.parent for f in (tmp_path/'b').glob('*/run.json')))}
    assert len(scores) == 2 and len(set(scores.values())) == 2
    test.write_text(before)                         # and back: the first run is the current one again
    back = mtmt_here(*batch)
    assert back.stdout.split('\n\n')[1:] == first.stdout.split('\n\n')[1:]
    more = mtmt_here(*batch, '-p', 'epochs', 9)
    assert more.returncode == 0, more.stderr[-2000:]
    summary = json.loads((tmp_path/'b'/'summary.json').read_text())
    assert sorted(r['system'] for r in summary) == ['direct (epochs=8)', 'direct (epochs=9)']
    table = mtmt_here('table', tmp_path/'b')
    assert table.returncode == 0 and 'direct (epochs=8)' in table.stdout and 'direct (epochs=9)' in table.stdout
    assert 'left out' in table.stdout and 'data.test' in table.stdout

def test_two_batches_at_once_keep_each_others_runs(small_files, tmp_path, tiny_encoder):
    options = ['--out', tmp_path/'b', '-p', 'benchmark', 'files', '-p', 'data_dir', small_files, '-p', 'encoder', tiny_encoder,
        '-p', 'max_length', 32]
    two = [subprocess.Popen([sys.executable, '-m', 'mtmt.cli', 'batch', '--targets', 'sw', '--methods', m, '--workers', '1',
        *map(str, options)], env=dict(os.environ, HF_HUB_OFFLINE='1', TQDM_DISABLE='1'), stdout=subprocess.DEVNULL)
        for m in ('direct', 'tsl')]
    assert [p.wait() for p in two] == [0, 0]
    assert sorted(r['system'] for r in json.loads((tmp_path/'b'/'summary.json').read_text())) == ['direct', 'tsl']
    assert len(list((tmp_path/'b'/'teachers').iterdir())) == 1

def test_a_run_under_another_runs_name_is_made_again(small_files, tmp_path, tiny_encoder):
    "A copied folder, and damaged files, are noticed before they are used"
    asked = recipe(small_files, tmp_path, tiny_encoder, 'direct')
    other = run(replace(asked, seed=1))
    [name] = planned_runs([asked])
    shutil.copytree(tmp_path/other['run'], tmp_path/name)
    said = []
    first = run(asked, said.append)
    assert first['seed'] == 0 and any('which is of another run' in line for line in said)
    edited(tmp_path/name/'predictions.conll', 'Kano', 'Oslo')
    said = []
    assert run(asked, said.append)['f1'] == first['f1'] and any('made again, because of predictions.conll' in line for line in said)

@pytest.mark.parametrize('spoil', [lambda f: (f/'trained.safetensors').write_bytes((f/'trained.safetensors').read_bytes()[:-100]),
    lambda f: another_weight(f), lambda f: (f/'trained.safetensors').unlink(), lambda f: (f/'mtmt.json').write_text('{"task"')],
    ids=['truncated', 'changed', 'missing', 'cut off'])
def test_a_damaged_teacher_is_made_again(small_files, tmp_path, tiny_encoder, spoil):
    "No damaged weight is used, and none blocks the folder"
    asked = recipe(small_files, tmp_path, tiny_encoder, 'direct')
    first = run(asked)
    teacher = tmp_path/'teachers'/first['teachers']['recognizer']
    weights = next(iter(load_file(teacher/'trained.safetensors')))
    if 'another_weight' in spoil.__code__.co_names:
        spoil = lambda f: save_file({k: v+(k == weights) for k, v in load_file(f/'trained.safetensors').items()},
            f/'trained.safetensors', {'format': 'pt'})
    spoil(teacher)
    shutil.rmtree(tmp_path/first['run'])
    said = []
    again = run(asked, said.append)
    assert result(tmp_path, again) == result(tmp_path, again) and again['f1'] == first['f1'] and not again['reused']
    assert any('damaged, and made again' in line for line in said)

def test_runs_of_an_older_kit_are_recognised(small_files, tmp_path, tiny_encoder):
    asked = recipe(small_files, tmp_path, tiny_encoder, 'direct')
    first = run(asked)
    old = shutil.copytree(tmp_path/first['run'], tmp_path/'files-sw-direct-s0-1234567890ab')
    def as_it_was(record):
        record['run'] = old.name
        for key in ('format', 'made_from', 'options', 'files', 'seal'): record.pop(key)
    edited_json(old/'run.json', as_it_was)
    said = []
    run(asked, said.append)
    assert any(line.startswith('1 runs here were made by an older kit') for line in said)
    found = read_runs(tmp_path)
    assert [r['run'] for r in found.rows] == [first['run']] and 'older kit' in found.left_out[0]
    shutil.rmtree(tmp_path/first['run'])
    found = read_runs(tmp_path)
    assert [r['run'] for r in found.rows] == [old.name] and 'did not record' in found.left_out[0]

def test_gold_tags_stay_with_their_words(small_files, tmp_path, tiny_encoder):
    "Sentences that are left out leave text and tags alike: by problems='skip', and by keep_share"
    rows = list(sentences('sw', 40, 5))
    rows[3] = (rows[3][0], ['I-PER', *rows[3][1][1:]])
    write(small_files/'sw.train.conll', rows)
    corpora = recipe(small_files, tmp_path, tiny_encoder, 'mtmt', problems='skip').part(Corpora)
    materials = load_materials(corpora, with_gold=True)
    assert len(materials.target) == len(materials.gold) == 39 and materials.target['id'][3] == '4'
    expected = [r for i, r in enumerate(rows) if i != 3]
    assert [list(t) for t in materials.target['tokens']] == [w for w, _ in expected]
    assert tag_names(materials.gold) == [t for _, t in expected]
    oracle = dict(pair_balance='gold', allow_target_labels=True, problems='skip', keep_share=.5, learning_rate=3e-3)
    out = run(recipe(small_files, tmp_path/'runs', tiny_encoder, 'mtmt', **oracle))
    assert any('ORACLE PAIRS: tags of 39 of 40' in n for n in out['notes'])

def test_rows_of_gold_follow_the_chosen_sentences(small_files, tmp_path, tiny_encoder):
    asked = recipe(small_files, tmp_path, tiny_encoder, 'direct')
    materials = load_materials(asked.part(Corpora), with_gold=True)
    teachers = workshop.train_teachers(asked, materials, workshop.Workshop(tmp_path, lambda line: None))
    words = sum(map(len, materials.target['tokens']))
    beliefs = Annotations(torch.eye(5)[flat(materials.gold['ner_tags'])].half())
    lesson = choose(Refinement(keep_share=.5), materials, teachers, beliefs, {'en': ('en',)}, 0, lambda line: None)
    assert len(lesson.target) == 20 and len(lesson.gold) == sum(map(len, lesson.target['tokens'])) < words
    assert torch.equal(lesson.annotations.probabilities.argmax(-1), lesson.gold)

def test_a_recognizer_reads_a_text_once_for_all_its_students(small_files, tiny_encoder, tmp_path):
    "What it says is kept bit by bit; what was damaged is read again, and somebody is told"
    here, other, lines = tmp_path/'here', tmp_path/'other', []
    run(recipe(small_files, here, tiny_encoder, 'direct'))
    kept = {path: path.stat().st_mtime_ns for path in here.glob('annotations/recognizer-*.safetensors')}
    assert len(kept) == 2                                                # the test, and the dev set for its confidence
    again = run(recipe(small_files, here, tiny_encoder, 'tsl'), lines.append)
    assert {path: path.stat().st_mtime_ns for path in here.glob('annotations/recognizer-*.safetensors')} == kept
    alone = run(recipe(small_files, other, tiny_encoder, 'tsl'))
    one, two = ((folder/alone['run']/'probabilities.safetensors').read_bytes() for folder in (here, other))
    assert again['run'] == alone['run'] and one == two
    for path in kept: path.write_bytes(path.read_bytes()[:-1]+b'?')
    last = run(recipe(small_files, here, tiny_encoder, 'tsl', student_epochs=1), lines.append)
    assert sum('damaged, and made again' in line for line in lines) == 1 and last['teacher_f1'] == again['teacher_f1']
