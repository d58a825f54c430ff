"Tables and reports: one family of comparisons, fair means, what is left out is named, and names that want to be more than names."
import csv, json, shutil, tempfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mtmt.charts import as_svg, target_chart, type_chart
from mtmt.compare import compare, holm, over_targets
from mtmt.data import MtmtError, sealed
from mtmt.health import Health
from mtmt.records import folder_name, read_record
from mtmt.report import compared_methods, comparison, finished, leaderboard, methods_together, recompute_all, runs_not_shown
from mtmt.report import slices_by_test, table, with_status, write_report
from mtmt.methods import METHODS
from mtmt.tagger import Entity, Tagged
from mtmt.widgets import sentence_view
from test_compare import changed, gold_tags, made_run
from test_site import CHROMIUM, FLAGS, needs_browser, serious_faults

@pytest.fixture
def spoilt():
    "A folder for runs that are spoilt on purpose: conftest computes those under tmp_path again"
    with tempfile.TemporaryDirectory() as folder: yield Path(folder)

SHARES = dict(direct=.7, tsl=.35, mtmt=.25)

def batch(to, targets=('sw', 'yo'), methods=SHARES, seeds=(0, 1), **more):
    "A folder of finished runs"
    gold = gold_tags(40)
    for t in targets:
        for m in methods:
            for s in seeds: made_run(to, m, s, gold, changed(gold, SHARES[m], [s, ord(t[0]), ord(m[0])]), t, **more)
    return to

def cells(markdown):
    "Rows of a table of Markdown"
    return [[c.strip() for c in line.strip('|').split('|')] for line in markdown.split('\n') if line.startswith('|')]

# The table

def test_the_mean_is_over_targets_that_every_system_has():
    rows = [dict(target=t, method=m, f1=f1) for t, m, f1 in (('es', 'direct', .6), ('es', 'tsl', .7), ('sw', 'direct', .2),
        ('yo', 'direct', .4), ('yo', 'tsl', .5))]
    text = table(rows)
    assert cells(text)[-1] == ['**mean**', '50.0', '60.0'] and text.endswith('sw is not in the mean: no tsl')
    apart = table([r for r in rows if (r['target'], r['method']) in (('sw', 'direct'), ('es', 'tsl'))])
    assert cells(apart)[-1] == ['**mean**', '-', '-'] and 'sw is not in the mean: no tsl' in apart and 'es is not in' in apart
    assert 'mean' not in table(rows[:2])

some_rows = st.dictionaries(st.tuples(st.sampled_from('abcd'), st.sampled_from(['direct', 'tsl', 'theirs'])), st.integers(0, 100), min_size=1)
@settings(max_examples=150, deadline=None)
@given(some_rows)
def test_the_mean_row_by_a_plain_loop(f1):
    rows = [dict(target=t, method=m, f1=x/100) for (t, m), x in f1.items()]
    text = cells(table(rows))
    systems, targets = text[0][1:], list(dict.fromkeys(t for t, _ in f1))
    assert sorted(systems) == sorted({m for _, m in f1})
    if len(targets) < 2: return
    shared = [t for t in targets if all((t, m) in f1 for m in systems)]
    assert text[-1][1:] == [f'{np.mean([f1[t, m] for t in shared]):.1f}' if shared else '-' for m in systems]

def test_columns_are_in_the_order_of_the_presets(tmp_path):
    gold = gold_tags(10)
    for m in ('zeta', 'mtmt', 'prokd', 'direct', 'alpha'): made_run(tmp_path, m, 0, gold, changed(gold, .2, len(m)))
    made_run(tmp_path, 'mtmt', 0, gold, gold, run='corpus-sw-mtmt-s0-b', options=dict(similarity_weight=.1))
    presets = dict(direct=['direct'], prokd=['prokd'], mtmt=['mtmt', 'mtmt (similarity_weight=0.1)'])
    expected = sum((presets[m] for m in METHODS if m in presets), [])
    assert cells(table(finished(tmp_path)))[0][1:] == [*expected, 'alpha', 'zeta']

def test_what_a_folder_holds_is_what_its_runs_say(tmp_path):
    "A summary.json of another batch hides nothing and adds nothing"
    batch(tmp_path, ['sw'], ['direct', 'tsl'])
    (tmp_path/'summary.json').write_text(json.dumps([dict(benchmark='corpus', target='yo', method='mtmt', seed=0, f1=.99, run='gone')]))
    assert {(r['target'], r['system'], r['seed']) for r in finished(tmp_path)} == {('sw', m, s) for m in ('direct', 'tsl') for s in (0, 1)}
    assert '99.0' not in table(finished(tmp_path))

def test_other_systems_are_rows_like_any(tmp_path):
    batch(tmp_path, ['sw'], ['direct'])
    gold = gold_tags(40)
    made_run(tmp_path, 'urchade/gliner', 0, gold, changed(gold, .1, 0), sources=[], encoder='', run=f'corpus-sw-{folder_name("urchade/gliner")}')
    board = leaderboard(tmp_path)
    assert cells(table(finished(tmp_path)))[0] == ['target', 'direct', 'urchade/gliner']
    assert board.difference.notna().tolist() == [False, True] and board['select'].tolist() == ['source-dev', 'none']

def test_an_empty_folder_says_what_to_do(tmp_path):
    (tmp_path/'notebooks').mkdir()
    failed = dict(run='corpus-fr-tsl-s0', error='DataError', message='no language fr', notebook='notebooks/x.ipynb')
    (tmp_path/'notebooks'/'x.failed.json').write_text(json.dumps(failed))
    with pytest.raises(MtmtError, match='no finished runs; `mtmt batch(.|\n)*no language fr'): finished(tmp_path)

def test_collapsed_seeds_are_marked_by_system():
    rows = [dict(target='sw', method='tsl', system=s, f1=f1) for s, f1 in (('tsl', .5), ('tsl', .2), ('tsl', .5), ('tsl (b)', .2))]
    assert [r['status'] for r in with_status(rows)] == ['done', 'collapsed', 'done', 'done'] and '(1 collapsed)' in table(rows)

# One family

def test_p_is_corrected_over_methods_and_targets(tmp_path):
    batch(tmp_path)
    folders = lambda t, m: [tmp_path/f'corpus-{t}-{m}-s{s}' for s in (0, 1)]
    raw = {(t, m): compare(folders(t, m), folders(t, 'direct'))['p'] for t in ('sw', 'yo') for m in ('mtmt', 'tsl')}
    told = compared_methods(tmp_path, ['tsl', 'mtmt'], 'direct')
    assert {k: x['p_holm'] for k, x in told.items()} == dict(zip(raw, holm(list(raw.values()))))
    board = leaderboard(tmp_path)
    board = board[(board.test != 'mean') & (board.system != 'direct')]
    assert {(r.test, r.system): r.p for r in board.itertuples()} == {k: x['p_holm'] for k, x in told.items()}
    assert len(told) == 4 and all(told[k]['p_holm'] >= raw[k] for k in raw)
    alone = compared_methods(tmp_path, 'tsl', 'direct')
    assert set(alone) == {('sw', 'tsl'), ('yo', 'tsl')}

def test_the_family_and_the_reasons_are_printed(tmp_path):
    batch(tmp_path)
    text = comparison(tmp_path, ['tsl', 'mtmt'], 'direct')
    assert 'Family: 4 comparisons (' in text and 'against direct on sw, yo' in text
    assert 'fewer than 5 seeds' in text and {row[8] for row in cells(text)[2:]} == {'-'} and '2 seeds, in pairs' in text
    report = write_report(tmp_path)[0].read_text()
    assert 'Family: 4 comparisons (' in report and 'fewer than 5 seeds' in report
    with pytest.raises(MtmtError, match="no runs of tls; systems here: .*Did you mean 'tsl'"): comparison(tmp_path, ['mtmt', 'tls'], 'direct')
    with pytest.raises(MtmtError, match='no runs of none; systems here'): comparison(tmp_path, 'tsl', 'none')

def test_five_seeds_have_an_order(tmp_path):
    batch(tmp_path, ['sw'], ['direct', 'tsl'], range(5))
    text = comparison(tmp_path, 'tsl', 'direct')
    assert 'fewer than 5' not in text and float(cells(text)[2][8]) <= 1 and 'Family: 1 comparison (' in text

# The leaderboard

def test_means_of_the_leaderboard_are_those_over_targets(tmp_path):
    batch(tmp_path)
    gold = gold_tags(40)
    made_run(tmp_path, 'direct', 0, gold, changed(gold, .1, 0), 'ha')
    board = leaderboard(tmp_path)
    found = over_targets(tmp_path, ['direct', 'tsl', 'mtmt'], 'direct', ['sw', 'yo'])
    means = board[board.test == 'mean'].set_index('system')
    for r in found.rows:
        row = means.loc[r['system']]
        assert (row.f1, row.low, row.high) == (r['f1'], r['low'], r['high'])
        if 'difference' in r: assert (row.difference_low, row.difference_high) == (r['difference_low'], r['difference_high'])
    text = write_report(tmp_path)[0].read_text()
    assert 'ha is not in the mean: no mtmt, tsl' in text and 'mean: over sw, yo' in text

def test_what_must_not_be_compared_is_shown_and_not_compared(tmp_path):
    "A model chosen by the target's dev set stands in the table, without a difference"
    batch(tmp_path)
    gold = gold_tags(40)
    for t in ('sw', 'yo'):
        oracle = made_run(tmp_path, 'oracle', 0, gold, gold, t)
        line = read_record(oracle)['signature'].replace('select:source-dev', 'select:target-dev(oracle)')
        record = json.loads((oracle/'run.json').read_text()) | dict(signature=line)
        (oracle/'run.json').write_text(json.dumps(sealed(record)))
    board = leaderboard(tmp_path)
    mine = board[board.system == 'oracle']
    assert mine.difference.isna().all() and set(mine['select']) == {'target-dev(oracle)'} and 'mean' not in set(mine.test)
    text = write_report(tmp_path)[0].read_text()
    assert 'oracle on sw is not compared with direct: select is target-dev(oracle) and source-dev' in text
    assert 'Family: 4 comparisons' in text

def test_no_shared_target_no_mean(tmp_path):
    gold = gold_tags(10)
    made_run(tmp_path, 'direct', 0, gold, changed(gold, .2, 0), 'sw')
    made_run(tmp_path, 'tsl', 0, gold, changed(gold, .2, 0), 'yo')
    board = leaderboard(tmp_path)
    assert board[board.test == 'mean'].f1.isna().all() and len(board[board.test == 'mean']) == 2
    text = write_report(tmp_path)[0].read_text()
    assert 'sw is not in the mean: no tsl' in text and 'Nothing here is compared with direct' in text
    assert [row[3] for row in cells(text) if row[0] == 'mean'] == ['-', '-']

def test_published_numbers_stand_below_their_test(tmp_path):
    batch(tmp_path, ['es'], ['direct'], benchmark='conll', parallel=False)
    board = leaderboard(tmp_path)
    assert board.test.unique().tolist() == ['conll es'] and 'TSL 2020, single source' in set(board.system)

def test_methods_together_take_the_first_seed(tmp_path):
    batch(tmp_path, ['sw'])
    both = methods_together(tmp_path, finished(tmp_path))
    assert list(both.said) == ['gold', *[m for m in METHODS if m in SHARES]] and both.languages == ['sw']

# Left out

def test_what_is_left_out_is_named(spoilt):
    batch(spoilt, ['sw'], ['direct', 'tsl'])
    shutil.copytree(spoilt/'corpus-sw-tsl-s0', spoilt/'my-copy')
    (spoilt/'corpus-sw-tsl-s1'/'run.json').unlink()
    (spoilt/'broken').mkdir()
    (spoilt/'broken'/'run.json').write_text('{')
    lines = runs_not_shown(spoilt).split('\n')
    assert any(l.startswith('my-copy: left out, a copy of') for l in lines) and any(l.startswith('broken: left out') for l in lines)
    assert 'corpus-sw-tsl-s1: left out, no run.json' in lines and len(lines) == 3
    files = write_report(spoilt)
    for f in files[:2]: assert 'my-copy: left out' in f.read_text() and 'no run.json' in f.read_text()

def test_runs_that_cannot_be_computed_again_count(spoilt, capsys):
    batch(spoilt)
    assert recompute_all(spoilt) == 0 and '12 of 12 runs' in capsys.readouterr().out
    (spoilt/'corpus-sw-tsl-s1'/'run.json').unlink()
    assert recompute_all(spoilt) == 1
    said = capsys.readouterr().out
    assert 'corpus-sw-tsl-s1: predictions but no run.json: not computed' in said and '11 of 12 runs' in said
    for f in spoilt.glob('*/predictions.conll'): f.unlink()
    for f in spoilt.glob('*/run.json'): f.unlink()
    with pytest.raises(MtmtError, match='no runs here'): recompute_all(spoilt)

@pytest.mark.parametrize('change, line', [
    (dict(f1=.99), 'summary.json: f1 of corpus-sw-tsl-s0 is 0.99, its run.json says '),
    (dict(signature='mtmt|x:y'), 'summary.json: signature of corpus-sw-tsl-s0 is mtmt|x:y'),
    (dict(run='gone'), 'summary.json names gone: '),
    (dict(status='collapsed', notebook='notebooks/x.ipynb'), '')])
def test_the_summary_is_compared_with_the_runs(spoilt, capsys, change, line):
    batch(spoilt, ['sw'], ['direct', 'tsl'])
    row = {k: read_record(spoilt/'corpus-sw-tsl-s0')[k] for k in ('run', 'f1', 'precision', 'signature', 'seed')}
    (spoilt/'summary.json').write_text(json.dumps([row | change]))
    assert recompute_all(spoilt) == int(bool(line)) and line in capsys.readouterr().out

@pytest.mark.parametrize('text', ['', '{', '[1]', '[{"f1": 1}]', '{"a": 1}', 'null'])
def test_a_summary_that_is_none(spoilt, capsys, text):
    batch(spoilt, ['sw'], ['direct'])
    (spoilt/'summary.json').write_text(text)
    assert recompute_all(spoilt) == 1 and 'summary.json cannot be read' in capsys.readouterr().out

# Names that want to be more

EVIL = ['=cmd|calc', '+1', '-1', '@SUM(A1)', '\t=1', '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', 'a|b\\|c', '../../up', '{{ 7*7 }}']

class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.links, self.text = [], [], []
    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, *(k for k, _ in attrs)))
        self.links += [v for k, v in attrs if k == 'href']
    def handle_data(self, data): self.text.append(data)

def test_names_are_only_names(tmp_path):
    gold = gold_tags(10)
    for i, name in enumerate(EVIL): made_run(tmp_path/'b', name, 0, gold, changed(gold, .2, i), sources=[], run=f'run-{i}')
    made_run(tmp_path/'b', 'direct', 0, gold, changed(gold, .5, 0), target='x/<i>..', run='other')
    files = write_report(tmp_path/'b')
    markdown, page, table_file = (f.read_text() for f in files[:3])
    parsed = Tags()
    parsed.feed(page)
    assert {t for t, *_ in parsed.seen} <= set('html head meta title style body main h1 h2 p div table thead tbody tr th td a ul li code'.split())
    assert not any(a.startswith('on') for _, *attrs in parsed.seen for a in attrs) and '49' not in ''.join(parsed.text)
    assert all(name.strip() in ' '.join(''.join(parsed.text).split()) for name in EVIL)
    assert '<' not in markdown and len({line.replace('\\\\', '').replace('\\|', '').count('|') for line in markdown.split('\n') if line[:1] == '|'}) == 1
    rows = list(csv.reader(table_file.splitlines()))
    assert not [c for r in rows[1:] for c in r[:2] if c[:1] in ('=', '+', '-', '@', '\t')] and "'=cmd|calc" in {r[1] for r in rows}
    assert all(f.resolve().is_relative_to((tmp_path/'b').resolve()) and f.is_file() for f in files)
    for link in parsed.links: assert (tmp_path/'b'/'pages'/(folder_name('x/<i>..')+'.html')).is_file() and link.startswith('pages/')

def markup(text, allowed):
    "A page's parser, after it met no tag but those allowed, no attribute that does something, and no link"
    parsed = Tags()
    parsed.feed(text)
    assert {tag for tag, *_ in parsed.seen} <= set(allowed.split())
    assert not any(name.startswith('on') or name in ('href', 'src') for _, *names in parsed.seen for name in names)
    return parsed

def test_what_notebooks_show_of_a_name_is_only_the_name(tmp_path):
    "Words, types, systems, targets and files in the views of the chapters: HTML and SVG"
    kinds = [name.replace(' ', '_') for name in EVIL]
    tags = [[f'B-{kind}'] for kind in kinds]
    view = sentence_view([[name] for name in EVIL], {'<b>': tags}, range(len(EVIL))).data
    assert all(name.strip() in ' '.join(markup(view, 'table tr td mark small b').text) for name in EVIL)
    text = ' '.join(EVIL)
    entities = [Entity(name, name, text.index(name), text.index(name)+len(name), .5) for name in EVIL]
    assert text in ' '.join(markup(Tagged('<i>'+text, [], [], EVIL)._repr_html_(), 'div').text)
    markup(Tagged(text, entities, [], EVIL)._repr_html_(), 'div mark small b')
    health = Health([dict(file=name, problems=1, sentences=1, words=1, entities=1, **{kind: 1 for kind in kinds}) for name in EVIL], EVIL, EVIL)
    markup(health._repr_html_(), 'div style table thead tbody tr th td')
    rows = [dict(target=name, method=name, f1=.5) for name in EVIL]
    scored = {name: dict(types={kind: dict(f1=.5, support=1) for kind in kinds}) for name in EVIL}
    for chart in (target_chart(rows), type_chart(scored, EVIL[6])):
        drawn = ElementTree.fromstring(as_svg(chart).data)
        assert not [e for e in drawn.iter() if e.tag.split('}')[-1] in ('script', 'image', 'a', 'foreignObject')]
        assert not [k for e in drawn.iter() for k in e.attrib if k.startswith('on')]

@needs_browser
@pytest.mark.parametrize('scheme, width', [('light', 1200), ('dark', 400)])
def test_the_report_has_no_serious_fault_of_accessibility(tmp_path, scheme, width):
    from playwright.sync_api import sync_playwright
    batch(tmp_path, ['sw', 'yo'])
    report = next(f for f in write_report(tmp_path) if f.suffix == '.html')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        page.goto(report.as_uri())
        assert page.locator('table').count() and not serious_faults(page)
        browser.close()

def test_negative_numbers_stay_numbers_in_the_csv(tmp_path):
    batch(tmp_path, ['sw'], ['direct', 'tsl'])
    rows = list(csv.DictReader(write_report(tmp_path, 'tsl')[2].read_text().splitlines()))
    assert float(next(r['difference'] for r in rows if r['system'] == 'direct')) < 0

def test_links_lead_to_pages(tmp_path):
    from urllib.parse import unquote
    batch(tmp_path, ['sw', 'zh-min nan'], ['direct'], benchmark='files', parallel=False)
    files = write_report(tmp_path)
    parsed = Tags()
    parsed.feed(files[1].read_text())
    assert len(set(parsed.links)) == 2 and all((tmp_path/unquote(link)).is_file() for link in parsed.links)
    assert files[-1].name == 'all.html'

def test_slices_by_test_take_targets(tmp_path):
    with pytest.raises(MtmtError, match='no runs of xx'): slices_by_test(batch(tmp_path, ['sw'], ['direct']), ['xx'])
