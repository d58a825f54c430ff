"Every method from end to end on a tiny encoder; the target's labels never matter; bad input gets one clear line and leaves nothing behind."
import json, random, subprocess, sys, time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import make_files, sentences, write
from mtmt.compare import recompute
from mtmt.data import MtmtError
from mtmt.methods import METHODS
from mtmt.recipes import make_recipe
from mtmt.records import read_predictions
from mtmt.training import last_checkpoint
from mtmt.runs import reopen, run

# presets that learn from labels of the target, by name
ORACLES = ('mtmt2-gold', 'upper-bound')

def recipe(files, out, encoder, method, **more):
    if method == 'mtmt-released': more = dict(allow_target_labels=True, corpus_pairs=64) | more
    if method.endswith('-multi'): more = dict(sources='en,de') | more
    return make_recipe(**dict(benchmark='files', data_dir=str(files), out_dir=str(out), encoder=encoder, target='sw', method=method,
        epochs=2, max_length=32, device='cpu', precision='fp32') | more)

def weights(out, result):
    "Weights of the model that a run scored"
    folder = out/result['run']/'model' if (out/result['run']/'model').exists() else out/'teachers'/next(iter(result['teachers'].values()))
    return load_file(folder/'trained.safetensors')

def shuffle_target_labels(files):
    "Scramble the tags of the target's train, dev and test"
    rng = random.Random(0)
    for split in ('train', 'dev', 'test'):
        lines = (files/f'sw.{split}.conll').read_text().split('\n')
        write(files/f'sw.{split}.conll', [(w, [rng.choice(['O', 'B-PER', 'B-LOC']) for _ in w])
            for w in ([l.split('\t')[0] for l in s.split('\n') if l] for s in '\n'.join(lines).split('\n\n')) if w])

@pytest.fixture(scope='module')
def both_labellings(tmp_path_factory):
    "Two folders of corpora that differ in the target's labels alone, each with a folder of runs that shares its teachers"
    top = tmp_path_factory.mktemp('labellings')
    for name in 'ab': make_files(top/name)
    shuffle_target_labels(top/'b')
    return [(top/name, top/f'runs-{name}') for name in 'ab']

@pytest.mark.parametrize('method, more', [*((m, {}) for m in METHODS if m not in (*ORACLES, 'translate-test')), ('mtmt-multi', dict(calibrate_similarity=True, sources='en,de'))])
def test_shuffled_target_labels_change_no_bit(both_labellings, tiny_encoder, method, more):
    "Train and dev labels of the target are scrambled, the test's too: the weights are equal bit by bit"
    option = dict(learning_rate=3e-3, **more)       # so that some tags are right and the scores can differ
    # its two options that look at target labels, refused by default
    if method == 'mtmt-released':
        option |= dict(select='source-dev', pair_balance='pseudo')
    first, second = (run(recipe(*places, tiny_encoder, method, **option)) for places in both_labellings)
    a, b = (weights(out, done) for (_, out), done in zip(both_labellings, (first, second)))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and first['f1'] != second['f1']

def test_released_options_reach_the_labels_only_when_named(small_files, tmp_path, tiny_encoder):
    with pytest.raises(MtmtError, match='allow_target_labels'): make_recipe(method='mtmt-released')
    out = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt-released'))
    assert 'select:target-dev(oracle)' in out['signature'] and 'boundaries:flat' in out['signature'] and any('ORACLE' in n
        for n in out['notes'])

@pytest.mark.parametrize('method', ORACLES)
def test_an_oracle_learns_from_the_target_and_says_so(small_files, tmp_path, tiny_encoder, method):
    first = run(recipe(small_files, tmp_path/'a', tiny_encoder, method))
    assert '(oracle)' in first['signature'] and first['recipe']['allow_target_labels']
    assert method != 'upper-bound' or '|src:sw|' in first['signature']
    opened = reopen(tmp_path/'a'/first['run'], small_files)
    assert (opened.materials.gold is not None) == (method == 'mtmt2-gold') and list(opened.teachers.recognizers) == first['sources']
    shuffle_target_labels(small_files)
    second = run(recipe(small_files, tmp_path/'b', tiny_encoder, method))
    a, b = weights(tmp_path/'a', first), weights(tmp_path/'b', second)
    assert any(not torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('option', [dict(similarity_teacher='gold'), dict(supervised=True, tasks=())])
def test_oracles_are_refused_where_nobody_asked_for_them(option):
    with pytest.raises(MtmtError, match='labels of the target'): make_recipe(method='mtmt', **option)

def test_a_second_teacher_that_knows_nothing_more_is_not_listened_to(small_files, tmp_path, tiny_encoder, monkeypatch):
    "The AUC of the second task is in the record; with the weight 0, mtmt2 is its own student without the second task"
    monkeypatch.setattr('mtmt.runs.second_opinion', lambda found: 0.)
    alone = dict(tasks='recognition', second_opinion=False)
    both = [run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt2', **more)) for more in ({}, alone)]
    a, b = (weights(tmp_path, result) for result in both)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert set(both[0]['same_class_auc']['en']) == {'all', 'entities', 'joint'} and both[1]['same_class_auc'] == {}

def test_a_second_opinion_needs_a_dev_set(small_files, tmp_path, tiny_encoder):
    (small_files/'en.dev.conll').unlink()
    with pytest.raises(MtmtError, match='second_opinion: this needs en.dev.conll'):
        run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt2'))

def test_more_seeds_of_a_teacher(small_files, tmp_path, tiny_encoder):
    "Each is the teacher of a run with that seed; together they are a system, and each alone is one too"
    three = run(recipe(small_files, tmp_path, tiny_encoder, 'ensemble', learning_rate=3e-3))
    later = run(recipe(small_files, tmp_path, tiny_encoder, 'direct', seed=1000, learning_rate=3e-3))
    # the last system is the headline: intervals and comparisons count its entities
    assert list(three['systems']) == ['recognizer-en', 'recognizer-en.2', 'recognizer-en.3', 'recognizer']
    assert three['f1'] == three['systems']['recognizer']['f1'] and not recompute(tmp_path/three['run'])
    assert later['reused'] == [three['teachers']['recognizer-en.2']]
    assert later['f1'] == three['systems']['recognizer-en.2']['f1']

def test_a_run_is_done_once_and_shares_its_teachers(small_files, tmp_path, tiny_encoder):
    said = []
    first = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt'))
    again = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt'), said.append)
    assert again == first and said[-1].endswith('done before')
    begun = time.process_time()
    tsl = run(recipe(small_files, tmp_path, tiny_encoder, 'tsl'))
    assert tsl['reused'] == [first['teachers']['recognizer']]
    assert tsl['cpu_seconds'] < time.process_time()-begun+.1        # its own, not those of the runs before it
    (small_files/'sw.test.conll').write_text((small_files/'sw.test.conll').read_text().replace('Kano', 'Oslo'))
    assert run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt'))['run'] != first['run']      # other data, other run

@pytest.mark.parametrize('option', [dict(similarity_map='half', agreement_map='cosine'), dict(calibrate_similarity=True),
    dict(ner_loss='kl'), dict(same_class='type'), dict(ner_words='pair', agreement_scope='pair'), dict(pairs_from='corpus', corpus_pairs=60),
    dict(pair_balance='none'), dict(teacher_cache=False), dict(knn_reliability=True), dict(keep_share=.6),
    dict(knn_reliability=True, knn_vectors='all-pieces'), dict(keep_share=.6, rounds=2, rounds_renew=('choice',)),
    dict(rounds=2, rounds_renew=('evaluator',)), dict(rounds=2, rounds_update='finetune-teacher'), dict(rounds=2),
    dict(adversary=.5), dict(layer_heads=1), dict(layer_heads=1, layer_weight=2.),
    dict(self_training=.5), dict(alignment=.1, alignment_start=0.), dict(head_lr_ratio=.001), dict(attention_mask=False),
    dict(similarity_map='learned', same_class='type'), dict(similarity_teacher='recognizer'),
    dict(similarity_teacher='second-recognizer'), dict(student_similarity='tags', same_class='type'), dict(entity_share=.9),
    dict(vote_weight=1., teacher_seeds=2), dict(hard_label_usage='replace', teacher_seeds=2), dict(hard_label_usage='weight', teacher_seeds=2),
    dict(student_epochs=3), dict(hard_labels=True), dict(permute_weights=True), dict(teacher_seeds=2), dict(second_opinion=True, similarity_weight=9.),
    dict(select='last'), dict(decode='bio'), dict(freeze_layers=1), dict(weights='bg'), dict(agreement_scope='none')])
def test_every_option_makes_a_difference_and_none_breaks(shared, tiny_encoder, option):
    files, out = shared
    base, other = (run(recipe(files, out, tiny_encoder, 'mtmt', **o)) for o in ({}, option))
    assert base['run'] != other['run']
    if option not in (dict(decode='bio'), dict(teacher_cache=False), dict(select='last')):
        a, b = weights(out, base), weights(out, other)
        assert any(not torch.equal(a[k], b[k]) for k in set(a) & set(b))

def test_options_of_several_teachers_differ_from_several_teachers_alone(shared, tiny_encoder):
    "Three seeds of a recognizer; each way to merge them, or to use the words that all of them tag alike, makes another student"
    files, out = shared
    option = dict(teacher_seeds=3, learning_rate=3e-3)
    uses = dict(vote_weight=1.), dict(vote_weight=1., vote_by_confidence=True), dict(hard_label_usage='replace'), \
        dict(hard_label_usage='weight'), dict(hard_label_usage='weight', hard_label_weight=9.), dict(teacher_weights='most-certain')
    each = [weights(out, run(recipe(files, out, tiny_encoder, 'tsl', **option, **use))) for use in ({}, *uses)]
    assert all(any(not torch.equal(a[k], b[k]) for k in a) for i, a in enumerate(each) for b in each[:i])

def test_the_vector_of_a_sentence_weighs_the_languages(shared, tiny_encoder):
    "Other vectors, and other sentences, give other weights of the sources; an encoder without a pooling layer is told"
    files, out = shared
    ask = lambda **more: run(recipe(files, out, tiny_encoder, 'tsl-multi', language_temperature='std', **more))
    each = [tuple(ask(**more)['teacher_weights'].values()) for more in ({}, dict(language_vectors='first'), dict(language_sentences=7))]
    assert len(set(each)) == 3 and ask(language_sentences=0)['teacher_weights'] == ask()['teacher_weights']
    with pytest.raises(MtmtError, match='no pooling layer of its own; use language_vectors='): ask(language_vectors='pooled')

@pytest.mark.parametrize('option', [dict(vote_weight=1.), dict(hard_label_usage='weight')])
def test_one_teacher_has_nobody_to_agree_with(option):
    with pytest.raises(MtmtError, match='this recipe has one: set teacher_seeds'): make_recipe(method='tsl', **option)

@pytest.mark.parametrize('option', [dict(teacher_weights='uniform'),
    *(dict(teacher_weights=k) for k in ('entropy', 'agreement', 'reliability')),
    *(dict(language_similarity=k) for k in ('cosine', 'l1', 'l2')), dict(language_level='sentence'), dict(language_temperature='std'),
    dict(language_penalty='language'), dict(calibrate_similarity=True)])
def test_teachers_that_are_the_same_are_one(shared, tiny_encoder, option):
    "A copy of English under another name makes a second teacher that says the same: the student is, bit by bit, that of one teacher"
    files, out = shared
    one = run(recipe(files, out, tiny_encoder, 'mtmt', calibrate_similarity='calibrate_similarity' in option))
    two = run(recipe(files, out, tiny_encoder, 'mtmt-multi', sources='en,xx', **option))
    a, b = weights(out, one), weights(out, two)
    assert all(torch.equal(a[k], b[k]) for k in a) and one['run'] != two['run']

def test_the_order_of_sources_does_not_matter(small_files, tmp_path, tiny_encoder):
    a, b = (run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt-multi', sources=s, teacher_weights='entropy', learning_rate=3e-3))
        for s in ('en,de', 'de,en'))
    x, y = weights(tmp_path, a), weights(tmp_path, b)
    assert all(torch.allclose(x[k], y[k], atol=1e-4) for k in x) and a['f1'] == b['f1']
    assert set(a['systems']) == {'recognizer', 'recognizer-en', 'recognizer-de',
        'student'} == set(read_predictions(tmp_path/a['run'])[1])-{'gold'}

def test_one_source_is_no_pool(small_files, tmp_path, tiny_encoder):
    for method in ('tsl', 'mtmt'):
        a, b = (weights(tmp_path, run(recipe(small_files, tmp_path, tiny_encoder, method, **more)))
            for more in ({}, dict(teacher_per_source=True, teacher_weights='language')))
        assert all(torch.equal(a[k], b[k]) for k in a)

def test_another_system_teaches(small_files, tmp_path, tiny_encoder):
    "Its file of the raw target is one more teacher: it changes the student and the run's name; another text is refused"
    rows = list(sentences('sw', 40, 5))
    said = tmp_path/'said.jsonl'
    def write_said(label):
        lines = []
        for words, tags in rows:
            start = [sum(map(len, words[:k]))+k for k in range(len(words)+1)]
            lines.append(json.dumps(dict(text=' '.join(words), entities=[dict(start=start[i], end=start[i+1]-1, label=label(t))
                for i, t in enumerate(tags) if t[:2] == 'B-'])))
        said.write_text('\n'.join(lines)+'\n')
    option = dict(learning_rate=3e-3, others=str(said), other_labels='PERSON=PER', teacher_weights='entropy', epochs=6)
    write_said(lambda t: {'B-PER': 'PERSON', 'B-LOC': 'LOC'}[t])
    good = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt', **option))
    assert good['f1'] > 0
    write_said(lambda t: 'LOC')
    other = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt', **option))
    a, b = weights(tmp_path, good), weights(tmp_path, other)
    assert other['run'] != good['run'] and not all(torch.equal(a[k], b[k]) for k in a)
    said.write_text(said.read_text().replace('Amina', 'Omar', 1))
    with pytest.raises(MtmtError, match=r'said\.jsonl:\d+: another text than sentence'):
        run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt', **option))
    with pytest.raises(MtmtError, match='has no weight for other systems'):
        recipe(small_files, tmp_path, tiny_encoder, 'mtmt-multi', others=str(said))

def test_sources_chosen_are_sources_named(small_files, tmp_path, tiny_encoder):
    lines = []
    auto = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt-multi', sources='auto', source_count=2), lines.append)
    assert set(auto['sources']) == {'en', 'de'} and any('by similarity to sw' in l for l in lines)
    assert run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt-multi', sources=','.join(auto['sources']), source_count=2))['run'] == auto[
        'run']

def test_rounds_are_scored_and_taken_up_again(small_files, tmp_path, tiny_encoder):
    r = recipe(small_files, tmp_path, tiny_encoder, 'tsl', rounds=3, learning_rate=3e-3)
    first = run(r)
    folder = tmp_path/first['run']
    a = weights(tmp_path, first)
    assert list(first['systems']) == ['recognizer', 'round1', 'round2', 'student']
    (folder/'run.json').unlink()
    (folder/'model'/'mtmt.json').unlink()
    again = run(r)
    b = weights(tmp_path, again)
    assert all(torch.equal(a[k], b[k]) for k in a) and again['systems'] == first['systems']

def test_a_round_chooses_anew(shared, tiny_encoder):
    "The second student's words and sentences are chosen by the first; the first student is the same"
    files, out = shared
    said, option = [], dict(rounds=2, keep_share=.5, knn_reliability=True, learning_rate=3e-3)
    plain, anew = (run(recipe(files, out, tiny_encoder, 'tsl', **option, **more), said.append) for more in ({}, dict(rounds_renew='choice')))
    assert sum('20 of 40 sentences kept' in line for line in said) == 3
    assert plain['systems']['round1'] == anew['systems']['round1']
    a, b = (weights(out, result) for result in (plain, anew))
    assert any(not torch.equal(a[k], b[k]) for k in a)

def test_each_way_to_go_on_is_another_second_student(shared, tiny_encoder):
    "The first one is the same; a run that lost its last student goes on with the others, to the same weights"
    files, out = shared
    ways = {}, dict(rounds_renew='evaluator'), dict(rounds_update='finetune-teacher'), \
        dict(rounds_renew='evaluator,choice', keep_share=.9, rounds_update='finetune-teacher')
    done = [run(recipe(files, out, tiny_encoder, 'mtmt', rounds=2, learning_rate=3e-3, **more)) for more in ways]
    each = [weights(out, result) for result in done]
    assert all(any(not torch.equal(a[k], b[k]) for k in a) for i, a in enumerate(each) for b in each[:i])
    assert len({result['systems']['round1']['f1'] for result in done[:3]}) == 1
    folder = out/done[2]['run']
    assert (folder/'teacher1'/'mtmt.json').exists()
    (folder/'run.json').unlink()
    (folder/'model'/'mtmt.json').unlink()
    again = weights(out, run(recipe(files, out, tiny_encoder, 'mtmt', rounds=2, learning_rate=3e-3, **ways[2])))
    assert all(torch.equal(each[2][k], again[k]) for k in again)

@pytest.mark.parametrize('option, message', [(dict(layer_heads=8, rounds=2, adversary=.1), 'in one round: not with adversary, rounds'), (dict(alignment=.1, adversary=.1), 'it takes one: set one to 0'), (dict(rounds_renew='choice', keep_share=.5), 'set rounds to 2 or more'),
    (dict(rounds_renew='choice', rounds=2), 'set one of them'), (dict(rounds_renew='selector', rounds=2), 'choice, evaluator, both, or nothing'),
    (dict(rounds_renew='evaluator', rounds=2), 'it needs the similarity task'), (dict(rounds_update='finetune-teacher'), 'set rounds to 2 or more'),
    (dict(rounds_update='finetune-teacher', rounds=2, teacher_seeds=2), 'goes on with one recognizer')])
def test_what_does_not_go_together_is_refused(option, message):
    with pytest.raises(MtmtError, match=message): make_recipe(method='tsl', **option)

def edit(name): return lambda files: (files/name).unlink()
BAD = [(lambda f: (f/'sw.train.conll').unlink(), {}, r'no file sw\.train\.conll or sw\.train\.txt; languages with a train split here: de, en'),
    (lambda f: (f/'en.train.conll').write_text('just\nwords\n'), {},
    r'en\.train\.conll.* (no tag column|share no entity type)|share no entity type'),
    (lambda f: (f/'en.dev.conll').write_text('Kano B-PLACE\n'), {}, r"en\.dev\.conll:1:6: unknown tag .B-PLACE.; accepted: O, B-LOC"),
    (lambda f: (f/'sw.train.conll').write_text(''), {}, r'sw\.train\.conll: the file is empty'),
    (lambda f: None, dict(target='swa'), r"no file swa\.(train|test)\.conll.*Did you mean 'sw'"),
    (lambda f: None, dict(encoder='/no/such/encoder'), r'no such folder; an encoder is'),]
@pytest.mark.parametrize('spoil, more, message', BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(small_files, tmp_path, tiny_encoder, spoil, more, message):
    spoil(small_files)
    out = tmp_path/'out'
    with pytest.raises(MtmtError, match=message): run(recipe(small_files, out, **dict(encoder=tiny_encoder, method='mtmt') | more))
    assert not out.exists()

def test_encoder_without_tokenizer(small_files, tmp_path, tiny_encoder):
    import shutil
    bare = shutil.copytree(tiny_encoder, tmp_path/'bare')
    (bare/'tokenizer.json').unlink()
    with pytest.raises(MtmtError, match='has no tokenizer.json'): run(recipe(small_files, tmp_path/'out', str(bare), 'mtmt'))
    assert not (tmp_path/'out').exists()

@pytest.mark.parametrize('known', [0, 2])
def test_text_that_the_encoder_does_not_know_is_refused_or_mentioned(small_files, tmp_path, tiny_encoder, known):
    "Nothing known: an error before any training; half of it: a line, and the run"
    words = ['ⴰⵎⵉⵏⴰ', 'ⵜⵣⴷⵖ', *['Kano', 'leo'][:known]]
    (small_files/'sw.train.conll').write_text(('\n'.join(f'{w}\tO' for w in words)+'\n\n')*20)
    said, r = [], recipe(small_files, tmp_path/'out', tiny_encoder, 'direct')
    if known:
        run(r, said.append)
        assert any('50 % of the words of sw have a character that the encoder' in line for line in said)
    else:
        with pytest.raises(MtmtError, match='100 % of the words of sw.*name an encoder that reads this script'): run(r, said.append)
        assert not (tmp_path/'out'/'teachers').exists()

def test_wrong_recipes_list_every_mistake():
    with pytest.raises(MtmtError) as e: make_recipe(method='mtml', lnag='nl', seed='x')
    assert all(x in str(e.value) for x in ("Did you mean 'mtmt'", "unknown parameter 'lnag'", 'seed: '))
    with pytest.raises(MtmtError, match='also a source'): make_recipe(target='en')

def test_killed_in_the_middle_leaves_no_model_and_goes_on(small_files, tmp_path, tiny_encoder):
    "A process killed while the student learns; the next one finishes with the weights of an undisturbed run"
    undisturbed = run(recipe(small_files, tmp_path/'a', tiny_encoder, 'mtmt', epochs=4))
    out = tmp_path/'b'
    asked = repr(asdict(recipe(small_files, out, tiny_encoder, 'mtmt', epochs=4)))
    code = ('import os, sys\nfrom mtmt import student\nfrom mtmt.recipes import make_recipe\nfrom mtmt.runs import run\nreal, n = student.mtmt_loss, [0]\n'
        'def loss(*a):\n    n[0] += 1\n    if n[0] == 25: os.kill(os.getpid(), 9)\n    return real(*a)\n'
        f'student.mtmt_loss = loss\nrun(make_recipe(**{asked}))')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == -9
    left = [p for p in out.iterdir() if p.name.startswith('files-')]
    assert len(left) == 1 and [p.name for p in left[0].iterdir()] == ['model.checkpoints']
    newest = Path(last_checkpoint(left[0]/'model.checkpoints'))
    for name in ('model.safetensors', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth', 'trainer_state.json'):
        whole = (newest/name).read_bytes()
        (newest/name).write_bytes(whole[:-20])
        assert last_checkpoint(newest.parent) != str(newest), f'{name} is cut off'
        (newest/name).unlink()
        assert last_checkpoint(newest.parent) != str(newest), f'{name} is missing'
        (newest/name).write_bytes(whole)
    resumed = run(recipe(small_files, out, tiny_encoder, 'mtmt', epochs=4))
    a, b = weights(tmp_path/'a', undisturbed), weights(out, resumed)
    assert resumed['run'] == undisturbed['run'] and all(torch.equal(a[k], b[k]) for k in a) and not (left[0]/'model.checkpoints').exists()

def test_two_processes_divide_the_work(small_files, tmp_path, tiny_encoder):
    "Both need the same recognizer and want the same folder at once: it is trained once, and each ends with the weights of a process alone"
    alone = {m: run(recipe(small_files, tmp_path/'a', tiny_encoder, m)) for m in ('tsl', 'mtmt')}
    out = tmp_path/'b'
    start = lambda m: subprocess.Popen(
        [sys.executable, '-c', f'from mtmt.recipes import *\nfrom mtmt.runs import *\nrun(Recipe(**{asdict(recipe(small_files, out, tiny_encoder, m))!r}))'],
        stderr=subprocess.PIPE, text=True)
    for p in [start('tsl'), start('mtmt'), start('mtmt')]: assert p.wait() == 0, p.stderr.read()
    both = {m: json.loads((out/alone[m]['run']/'run.json').read_text()) for m in alone}
    assert sum(alone['tsl']['teachers']['recognizer'] in r['reused'] for r in both.values()) == 1
    for m in alone:
        a, b = weights(tmp_path/'a', alone[m]), weights(out, both[m])
        assert all(torch.equal(a[k], b[k]) for k in a)
