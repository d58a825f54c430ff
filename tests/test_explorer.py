"The explorer: its columns by independent computation, its page in a real browser, and text that would like to be markup."
import base64, csv, io, itertools, json, re, shutil, subprocess, tomllib, unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings, strategies as st

import mtmt
from conftest import ROOT
from mtmt.conflicts import conflicts, entity_columns, nearest_words, readings, readings_of
from mtmt.data import MtmtError, Schema, read_conll, tag_names
from mtmt.entities import KINDS, spans
from mtmt.runs import run
from mtmt.widgets import Explorer, columns, page, write_page
from test_entities import slow_match
from test_runs import recipe
from test_tagger import a_run, random_tagger, tagger
from test_site import CHROMIUM, CONTRAST, FLAGS, needs_browser, serious_faults

STATIC = Path(mtmt.__file__).parent/'static'

TAGS = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
corpora = st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(*[st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)]*2)), min_size=1,
    max_size=6)

def of(pairs, **more):
    return readings([[f'w{i}' for i in range(len(a))] for a, _ in pairs], dict(gold=[a for a, _ in pairs], student=[b for _, b in pairs]),
        **more)

@settings(max_examples=500, deadline=None)
@given(corpora)
def test_entities_are_the_scorers(pairs):
    r = of(pairs)
    for name, side in (('gold', 0), ('student', 1)):
        want = {(int(s)+b, int(s)+e, t) for s, p in zip(r.starts, pairs) for b, e, t in spans(p[side])}
        assert {(b, e, r.types[t-1]) for b, e, t, _ in entity_columns(r, name)} == want

@settings(max_examples=300, deadline=None)
@given(corpora)
def test_a_place_is_a_pair_or_a_lone_entity(pairs):
    "Borders, kinds, types and `seen` of every place, against the slow matcher sentence by sentence"
    r = of(pairs)
    r.known = frozenset(' '.join(r.words[b:e]) for b, e, *_ in entity_columns(r, 'gold')[::2].tolist())
    r.found.clear()
    want = []
    for number, (gold, student) in enumerate(pairs):
        start = int(r.starts[number])
        for a, b, kind in slow_match(*(sorted((start+x, start+y, t) for x, y, t in spans(tags)) for tags in (gold, student))):
            both = [x for x in (a, b) if x]
            seen = any(' '.join(r.words[x:y]) in r.known for x, y, _ in both)
            want.append((number, min(x[0] for x in both), max(x[1] for x in both), kind, a[2] if a else '-', b[2] if b else '-', seen))
    c = conflicts(r, 'gold', 'student')
    assert sorted(c[['sentence', 'begin', 'end', 'kind', 'a', 'b', 'seen']].itertuples(index=False, name=None)) == sorted(want)
    assert c.begin.is_monotonic_increasing

@settings(max_examples=200, deadline=None)
@given(corpora)
def test_conflicts_from_the_other_side(pairs):
    r = of(pairs)
    c, back = conflicts(r, 'gold', 'student'), conflicts(r, 'student', 'gold')
    turned = c.kind.astype(str).replace(dict(missed='spurious', spurious='missed'))
    assert turned.tolist() == back.kind.astype(str).tolist()
    assert c.a.tolist() == back.b.tolist() and c.b.tolist() == back.a.tolist()
    for same in ('begin', 'end', 'sentence', 'seen', 'divergence'): assert c[same].tolist() == back[same].tolist()

def test_slices_and_conflicts_agree():
    "The two tables used to differ on this sentence: boundary and missed here, one wrong type there"
    from mtmt.slices import entity_table
    gold, predicted = ['B-PER I-PER B-LOC'.split()], ['B-PER I-PER I-PER'.split()]
    table = entity_table(gold, predicted, [['w']*3])
    places = conflicts(of([(gold[0], predicted[0])]), 'gold', 'student')
    assert list(places.kind) == table[table.side == 'gold'].kind.tolist() == ['boundary', 'missed']

def test_texts_without_entities():
    r = of([(['O', 'O'], ['O', 'O'])])
    assert conflicts(r, 'gold', 'student').empty and len(columns(r)['pairs']) == 1
    with pytest.raises(MtmtError, match='needs two systems'): columns(readings([['a']], dict(gold=[['O']])))
    with pytest.raises(MtmtError, match='studnet: no such system; there are gold, student'): columns(r, ('gold', 'studnet'))

def test_the_program_is_a_module(tmp_path):
    "Node reads it, and nothing in it can end the element that holds it"
    node = shutil.which('node')
    if not node: pytest.skip('no node on the PATH (Debian: apt install nodejs)')
    program = (STATIC/'explorer.js').read_text(encoding='utf-8')
    assert '</script' not in program.lower() and '<!--' not in program
    (tmp_path/'explorer.mjs').write_text(program, encoding='utf-8')
    done = subprocess.run([node, '--check', tmp_path/'explorer.mjs'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

def test_static_files_are_in_the_package():
    about = tomllib.loads((ROOT/'pyproject.toml').read_text())
    patterns = about['tool']['setuptools']['package-data']['mtmt']
    names = {str(p.relative_to(STATIC.parent)) for p in STATIC.rglob('*') if p.is_file()}
    assert names == {f'static/{name}' for name in ('explorer.css', 'explorer.html', 'explorer.js', 'report.html', 'card.md', 'project/README.md',
            'project/recipe.yaml', 'project/train.ipynb', 'project/example.txt')}
    assert all(any(Path(n).match(p) for p in patterns) for n in names)

def test_readings_of_a_run(small_files, tmp_path, tiny_encoder):
    "A run is asked about the test, and about the raw text that the student learned from"
    done = run(recipe(small_files, tmp_path, tiny_encoder, 'mtmt', learning_rate=3e-3))
    folder = tmp_path/done['run']
    test, train = (readings_of(folder, split, str(small_files)) for split in ('test', 'train'))
    for r, n in ((test, 12), (train, 40)):
        assert len(r.tokens) == n and list(r.said) == ['gold', 'recognizer', 'student'] and list(r.probabilities) == list(r.said)[1:]
        assert set(r.trusts) == {'alpha', 'beta', 'gamma'} and all(len(x) == len(r.words) for x in r.trusts.values())
        assert len(nearest_words(r, range(5))) == 5 and 'kano' in r.known
    assert len(readings_of(folder, 'train', str(small_files), 7).tokens) == 7
    for name in done['teachers'].values(): shutil.rmtree(tmp_path/'teachers'/name)
    with pytest.raises(MtmtError, match='no such teacher; .* predictions can be read without them'): readings_of(folder, 'test', str(small_files))

def test_divergence_and_gap_are_scipys():
    from scipy.spatial.distance import jensenshannon
    rng = np.random.default_rng(0)
    p = {n: rng.dirichlet(np.ones(5), 30).astype(np.float32) for n in 'ab'}
    tags = {n: [[TAGS[i] for i in x.argmax(1)]] for n, x in p.items()}
    r = readings([[f'w{i}' for i in range(30)]], tags, tags=TAGS, probabilities=p)
    c = conflicts(r, 'a', 'b')
    d = jensenshannon(p['a'], p['b'], axis=1, base=2)**2
    assert len(c) > 5
    for row in c.itertuples():
        sure = {n: x.max(1)[row.begin:row.end].mean() for n, x in p.items()}
        assert abs(row.divergence-d[row.begin:row.end].max()) < 1e-5 and abs(row.gap-(sure['b']-sure['a'])) < 1e-5

def test_nearest_words_by_a_plain_loop():
    import torch
    g = torch.Generator().manual_seed(1)
    words = [f'w{i%17}' for i in range(60)]
    r = readings([words], dict(a=[['O']*60], b=[['O']*60]))
    r.vectors = torch.randn(60, 2, 6, generator=g)
    u = torch.nn.functional.normalize(r.vectors, dim=-1)
    for i, got in zip((0, 20, 59), nearest_words(r, (0, 20, 59), 4)):
        best = {}
        for j in range(60):
            if words[j] != words[i]: best[words[j]] = max(best.get(words[j], (-2, 0)), ((u[i]*u[j]).sum(-1).mean().item(), j))
        want = sorted(best.values(), reverse=True)[:4]
        assert [j for j, _ in got] == [j for _, j in want] and np.allclose([c for _, c in got], [c for c, _ in want], atol=2e-3)

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()

def opened(browser, r, tmp_path, **context):
    "The page of some readings, and what it asked for"
    write_page(r, tmp_path/'page.html')
    page = browser.new_page(viewport=dict(width=1200, height=900), **context)
    page.asked, page.errors = [], []
    page.on('request', lambda q: page.asked.append(q.url))
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    page.on('dialog', lambda d: (page.errors.append(d.message), d.dismiss()))
    page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
    page.goto((tmp_path/'page.html').as_uri())
    page.wait_for_selector('.count')
    return page

def text_of(n, seed=0):
    "Two languages, three systems with probabilities, trusts and vectors"
    import torch
    rng = np.random.default_rng(seed)
    words = [[f'{w}{rng.integers(50)}' for w in rng.choice(['aba', 'chi', 'Duma', 'eko'], rng.integers(4, 12))] for _ in range(n)]
    N = sum(map(len, words))
    ends = np.cumsum([len(w) for w in words])[:-1]
    p = {'recognizer': rng.dirichlet(np.full(5, .3), N).astype(np.float32)}
    p['student'] = (.4*p['recognizer']+.6*rng.dirichlet(np.full(5, .3), N)).astype(np.float32)
    names = lambda x: [[TAGS[i] for i in s] for s in np.split(x, ends)]
    r = readings(words, dict(gold=names(rng.choice(5, N, p=[.6, .1, .1, .1, .1])), **{k: names(v.argmax(1)) for k, v in p.items()}),
        tags=TAGS, probabilities=p, languages=['sw' if i%3 else 'ar' for i in range(n)],
        trusts={k: rng.random(N).astype(np.float32) for k in ('alpha', 'beta', 'gamma')},
        vectors=torch.randn(N, 1, 8, generator=torch.Generator().manual_seed(seed)), name='Sample')
    r.known = frozenset(' '.join(r.words[b:e]).lower() for b, e, *_ in entity_columns(r, 'gold')[::2])
    r.found.clear()
    return r

@needs_browser
def test_every_filter_shows_what_the_table_says(browser, tmp_path):
    r = text_of(60)
    p = opened(browser, r, tmp_path)
    count = lambda: tuple(int(x) for x in re.findall(r'\d+', p.locator('.count').inner_text()))
    language = np.array(r.languages)
    def want(c): return (c.sentence.nunique(), len(c))
    c = conflicts(r, 'recognizer', 'student')
    off = c[c.kind != 'same']
    assert count() == want(off)
    def check(set_, unset, rows):
        set_()
        assert count() == want(rows) and 0 < len(rows) < len(off), len(rows)
        unset()
        assert count() == want(off)
    pick = lambda key, v: lambda: p.select_option(f'[data-key={key}]', v)
    press = lambda k: lambda: p.click(f'[data-kind={k}]')
    check(pick('type', '1'), pick('type', '0'), off[(off.a == 'PER') | (off.b == 'PER')] if r.types[0] == 'PER'
        else off[(off.a == 'LOC') | (off.b == 'LOC')])
    check(pick('seen', '1'), pick('seen', ''), off[off.seen])
    check(pick('language', '0'), pick('language', ''), off[language[off.sentence] == 'ar'])
    for k in KINDS[1:]: check(press(k), press(k), off[off.kind != k])
    def gap(v): p.locator('[data-key=gap]').evaluate('(e, v) => { e.value = v; e.dispatchEvent(new Event("input", {bubbles: true})); }', v)
    check(lambda: gap('0.2'), lambda: gap('0'), off[off.gap.abs() >= .2])
    def text(v): p.fill('[data-key=text]', v)
    check(lambda: text('DUMA1'), lambda: text(''), off[[('duma1' in ' '.join(r.tokens[s]).lower()) for s in off.sentence]])
    p.get_by_role('button', name='recognizer PER, student LOC').click()
    assert count() == want(off[(off.a == 'PER') & (off.b == 'LOC')])
    p.get_by_role('button', name='recognizer PER, student LOC').click()
    assert count() == want(off)
    first = [int(x.get_attribute('data-sentence')) for x in p.locator('article').all()]
    assert first == off.groupby('sentence').divergence.max().reset_index().sort_values(['divergence', 'sentence'],
        ascending=[False, True]).sentence.tolist()[:10]
    pick('order', 'text')()
    assert [int(x.get_attribute('data-sentence')) for x in p.locator('article').all()] == sorted(off.sentence.unique())[:10]
    for a, b in itertools.permutations(range(3), 2):
        if (a, b) == (1, 2): continue
        for key, v in (('b', str({0, 1, 2}.difference((a, b)).pop())), ('a', str(a)), ('b', str(b))):
            if p.locator(f'[data-key={key}] option[value="{v}"]').count(): p.select_option(f'[data-key={key}]', v)
        names = list(r.said)
        have = [names[int(p.locator(f'[data-key={k}]').input_value())] for k in 'ab']
        x = conflicts(r, *have)
        assert count() == want(x[x.kind != 'same'])
    assert not p.errors and all(u.startswith(('file:', 'data:', 'blob:')) for u in p.asked)
    p.close()

def shown_count(p): return tuple(int(x.replace(',', '')) for x in re.findall(r'[\d,]*\d', p.locator('.count').inner_text()))

def articles(p): return [int(x.get_attribute('data-sentence')) for x in p.locator('article').all()]

@needs_browser
def test_clearing_the_filters(browser, tmp_path):
    "The button is there exactly while some filter differs from its default, and takes all of them back"
    p = opened(browser, text_of(60), tmp_path)
    whole, clear = (shown_count(p), articles(p)), p.locator('.clear')
    set_gap = '(e, v) => { e.value = v; e.dispatchEvent(new Event("input", {bubbles: true})); }'
    steps = [lambda: p.select_option('[data-key=type]', '1'), lambda: p.select_option('[data-key=seen]', '0'),
        lambda: p.select_option('[data-key=language]', '1'), lambda: p.click('[data-kind=boundary]'), lambda: p.fill('[data-key=text]', 'du'),
        lambda: p.locator('[data-key=gap]').evaluate(set_gap, '0.1'), lambda: p.check('[data-key=flagged]'),
        lambda: p.locator('.heat button').nth(7).click(), lambda: p.locator('.often button').first.click()]
    for step in steps:
        assert clear.count() == 0
        step()
        assert clear.count() == 1
        clear.click()
        assert (shown_count(p), articles(p)) == whole
    for step in steps[:6]: step()
    assert shown_count(p) != whole[0]
    clear.focus()
    p.keyboard.press('Enter')
    assert (shown_count(p), articles(p)) == whole and clear.count() == 0
    assert p.locator('[data-key=text]').input_value() == '' and p.locator('[data-key=gap]').input_value() == '0'
    assert p.evaluate('document.activeElement.getAttribute("aria-current")') == 'true'
    # the order and the systems are no filters
    p.select_option('[data-key=order]', 'text')
    p.select_option('[data-key=a]', '0')
    assert clear.count() == 0 and not p.errors
    p.close()

@needs_browser
@pytest.mark.parametrize('letter', ['w', '\u0643'], ids=['ltr', 'rtl'])
def test_a_long_sentence_begins_with_its_conflict(browser, tmp_path, letter):
    "Words 3 and 70 of a hundred differ, of other types: what the filters leave is in view when the sentence is drawn"
    words = [[f'{letter*6}{i}' for i in range(100)] for _ in range(2)]
    mine, theirs = (['O']*100 for _ in range(2))
    mine[3], theirs[70] = 'B-PER', 'B-LOC'
    p = opened(browser, readings(words, dict(one=[mine]*2, other=[theirs]*2)), tmp_path)
    box = 'i => document.querySelectorAll("article .scroll")[i]'
    def in_view(word, sentence=0):
        return p.evaluate("""([s, w]) => {
            const box = document.querySelectorAll('article .scroll')[s], th = box.querySelector(`[data-word="${w}"]`).getBoundingClientRect();
            const frame = box.getBoundingClientRect(), name = box.querySelector('th[scope=row]').getBoundingClientRect();
            const [from, to] = box.dir === 'rtl' ? [frame.left, Math.min(name.left, frame.right)]
                : [Math.max(name.right, frame.left), frame.right];
            return th.left >= from-1 && th.right <= to+1;
        }""", [sentence, word+100*sentence])
    at = lambda: p.evaluate(f'({box})(0).scrollLeft')
    assert in_view(3) and in_view(3, 1) and not in_view(70) and at() == 0
    p.select_option('[data-key=type]', '1')        # LOC
    assert in_view(70) and in_view(70, 1) and not in_view(3)
    # nothing that draws the list again moves a sentence that the reader has moved
    p.evaluate(f'({box})(0).scrollLeft /= 2')
    moved = at()
    p.locator('.flag').nth(1).click()
    assert moved and at() == moved
    p.click('.clear')
    assert in_view(3) and not p.errors
    p.close()

@needs_browser
def test_kinds_have_explanations_and_neutral_names(browser, tmp_path):
    p = opened(browser, text_of(30, 1), tmp_path)
    kinds = lambda: {x.get_attribute('data-kind'): x.inner_text() for x in p.locator('[data-kind]').all()}
    described = lambda selector: p.locator(selector).first.get_attribute('title')
    assert kinds() == dict(boundary='boundary', type='type', missed='only recognizer', spurious='only student')
    assert described('[data-kind=missed]') == 'recognizer has an entity here, and student has none.'
    assert described('[data-kind=spurious]') == 'student has an entity here, and recognizer has none.'
    assert 'Jensen-Shannon' in described('article .hint') and 'learned from' in described('[data-key=seen]')
    # by key, and by touch: the same texts in a list
    p.locator('summary').get_by_text('What the words mean').focus()
    p.keyboard.press('Enter')
    listed = dict(zip(p.locator('dt').all_inner_texts(), p.locator('dd').all_inner_texts()))
    assert listed['only student'] == described('[data-kind=spurious]') and listed['divergence'] == described('article .hint')
    assert listed['seen in the sources'] == described('[data-key=seen]') and len(listed) == 8
    p.select_option('[data-key=a]', '0')
    assert kinds() == {k: k for k in KINDS[1:]}
    assert described('[data-kind=missed]') == 'gold has an entity here, and student has none.'
    assert p.locator('dt').first.is_visible() and 'missed' in p.locator('dt').all_inner_texts()
    assert p.get_by_role('button', name='missed').count() == 1 and not p.errors
    p.close()

@needs_browser
def test_the_most_frequent_forms(browser, tmp_path):
    "Counts of forms as a table of pandas has them, under filters too; a click leaves the places of one form"
    r = text_of(400, 5)
    r.tokens = [[re.sub('[0-9]', '', w) for w in t] for t in r.tokens]
    del r.words
    r.known = frozenset(w.lower() for w in ('aba', 'chi chi'))
    r.found.clear()
    p = opened(browser, r, tmp_path)
    off = conflicts(r, 'recognizer', 'student').query('kind != "same"')
    off = off.assign(form=[' '.join(r.words[b:e]) for b, e in zip(off.begin, off.end)])
    def panel(): return [tuple(x.locator('th,td').all_inner_texts()) for x in p.locator('.often tbody tr').all()]
    def check(rows):
        "The same counts, and the same forms above the last count: many a form may share that one"
        counts = rows.groupby(['form', 'a', 'b'], observed=True).size().nlargest(12)
        counts = counts[counts > 1]
        shown = panel()
        assert [int(x[3]) for x in shown] == counts.tolist()
        named = {(f, *(str(t).replace('-', 'none') for t in types), str(n)) for (f, *types), n in counts.items() if n > counts.min()}
        assert {x for x in shown if int(x[3]) > counts.min()} == named and len(named) > 3
    check(off)
    assert int(panel()[0][3]) > 20 and len(panel()) == 12
    form, a, b, n = panel()[1]
    here = off[(off.form == form) & (off.a == a.replace('none', '-')) & (off.b == b.replace('none', '-'))]
    row = p.locator('.often button').nth(1)
    row.focus()
    p.keyboard.press('Enter')
    assert shown_count(p) == (here.sentence.nunique(), len(here)) and len(here) == int(n)
    assert p.evaluate('document.activeElement.getAttribute("aria-pressed")') == 'true' and len(panel()) == 12
    assert set(articles(p)) <= set(here.sentence)
    p.select_option('[data-key=language]', '0')
    arabic = np.array(r.languages)[here.sentence] == 'ar'
    assert shown_count(p) == (here[arabic].sentence.nunique(), arabic.sum()) and 0 < arabic.sum() < len(here)
    p.select_option('[data-key=language]', '')
    p.locator('.often [aria-pressed=true]').click()
    assert shown_count(p) == (off.sentence.nunique(), len(off))
    p.select_option('[data-key=seen]', '1')
    check(off[off.seen])
    # other systems have other forms
    p.locator('.often button').first.click()
    p.select_option('[data-key=seen]', '')
    p.select_option('[data-key=a]', '0')
    other = conflicts(r, 'gold', 'student').query('kind != "same"')
    assert shown_count(p) == (other.sentence.nunique(), len(other)) and not p.errors
    p.close()

@needs_browser
@pytest.mark.parametrize('name, start', [('corpus sw, test: mtmt from en+de, seed 0', 'corpus-sw-test-mtmt-from-en-de-seed-0-cases'),
    ('../../etc/passwd', 'etc-passwd-cases'), ('', 'cases'), ('\u202e<b>/\\:*?"|', 'U-202E-b-cases'), ('\u0643\u062a\u0628', '\u0643\u062a\u0628-cases')])
def test_downloads_carry_the_run(browser, tmp_path, name, start):
    r = text_of(6)
    r.name = name
    p = opened(browser, r, tmp_path)
    for kind in ('conll', 'csv'):
        with p.expect_download() as d: p.locator(f'.{kind}').click()
        assert d.value.suggested_filename == f'{start}.{kind}'
    p.close()

@needs_browser
def test_a_word_and_the_export_by_keyboard_alone(browser, tmp_path):
    r = text_of(30, 1)
    p = opened(browser, r, tmp_path)
    off = conflicts(r, 'recognizer', 'student').query('kind != "same"')
    for _ in range(80):
        p.keyboard.press('Tab')
        if p.evaluate('document.activeElement.hasAttribute("data-word")'): break
    row = int(p.evaluate('document.activeElement.getAttribute("data-word")'))
    p.keyboard.press('ArrowRight')
    assert p.evaluate('document.activeElement.getAttribute("data-word")') == str(row+1)
    p.keyboard.press('Enter')
    behind = p.locator('.why')
    assert behind.count() == 1
    shown = behind.inner_text()
    assert f'{r.probabilities["student"][row+1].max():.2f}' in shown and f'{round(r.trusts["gamma"][row+1]*255)/255:.2f}' in shown
    near = [r.words[i] for i, _ in nearest_words(r, [row+1])[0]]
    assert [x.inner_text() for x in p.locator('.near li bdi').all()] == near
    p.keyboard.press('Escape')
    assert p.locator('.why').count() == 0
    p.keyboard.press('n')
    p.keyboard.press('f')
    p.keyboard.press('n')
    p.keyboard.press('n')
    p.keyboard.press('f')
    flagged = [int(x.get_attribute('data-sentence')) for x in p.locator('article:has(.flag[aria-pressed=true])').all()]
    assert len(flagged) == 2
    p.keyboard.press('p')
    assert p.evaluate('document.activeElement.getAttribute("aria-current")') == 'true'
    p.keyboard.press('/')
    p.keyboard.type('duma')
    assert p.evaluate('document.activeElement.dataset.key') == 'text'
    with p.expect_download() as d:
        p.locator('.conll').focus()
        p.keyboard.press('Enter')
    rows = [s.split('\n') for s in open(d.value.path(), encoding='utf-8').read().split('\n\n')[1:]]
    rows = [[l.split('\t') for l in s if l] for s in rows]
    assert [[w for w, *_ in s] for s in rows] == [r.tokens[i] for i in sorted(flagged)]
    tags = [[r.tags[t] for t in r.said['student'][r.starts[i]:r.starts[i+1]]] for i in sorted(flagged)]
    assert [[t for *_, t in s] for s in rows] == tags
    with p.expect_download() as d:
        p.locator('.csv').focus()
        p.keyboard.press('Enter')
    table = pd.read_csv(d.value.path())
    want = off[off.sentence.isin(flagged)]
    alone = dict(missed='only recognizer', spurious='only student')
    assert table.kind.tolist() == [alone.get(k, k) for k in want.kind] and table.sentence.tolist() == want.sentence.tolist()
    assert np.allclose(table.divergence, want.divergence, atol=5e-3) and (table.flagged == 1).all()
    assert not p.errors
    p.close()

def valid(tags):
    "A plain loop: an I- that goes on with nothing begins an entity"
    out = []
    for t in tags: out.append('B'+t[1:] if t[0] == 'I' and (not out or out[-1][2:] != t[2:]) else t)
    return out

@needs_browser
def test_correcting_by_keyboard(browser, tmp_path):
    "Tags set behind words: shown as a row, saved as a file that a run reads, taken back"
    r = text_of(20, 4)
    p = opened(browser, r, tmp_path)
    first, second = articles(p)[:2]
    gold = lambda s: [r.tags[t] for t in r.said['gold'][r.starts[s]:r.starts[s+1]]]
    want, box = {}, lambda s: p.locator(f'article[data-sentence="{s}"]')
    def focused(name): return p.evaluate('n => document.activeElement.getAttribute(n)', name)
    def tab_to(tag):
        "From the word, or from another tag, with the keys that everybody has"
        for key in ('Tab', 'Shift+Tab'):
            for _ in range(len(r.tags)):
                if focused('data-tag') == tag: return
                p.keyboard.press(key)
        assert focused('data-tag') == tag
    def choose(s, word, tag):
        raw.setdefault(s, gold(s))[word] = tag
        tab_to(tag)
        p.keyboard.press('Enter' if word%2 else 'Space')
        want[s] = valid(raw[s])
        assert focused('data-tag') == want[s][word]
        row = box(s).locator('tbody tr').last
        assert row.locator('th').inner_text() == 'corrected'
        shown = [(x.get_attribute('colspan'), x.inner_text()) for x in row.locator('td.e').all()]
        assert shown == [(str(e-b), t) for b, e, t in sorted(spans(want[s]))]
    raw = {}
    assert p.locator('.corrections').count() == p.locator('.corrected').count() == 0
    p.keyboard.press('Tab')
    p.locator(f'[data-word="{r.starts[first]}"]').focus()
    p.keyboard.press('Enter')
    p.keyboard.press('Tab')
    # an I- at the beginning, an entity of two words, and its beginning taken away and given back
    choose(first, 0, 'I-PER')
    assert want[first][0] == 'B-PER'
    p.keyboard.press('ArrowRight')
    assert focused('data-word') == str(r.starts[first]+1)
    p.keyboard.press('Enter')
    p.keyboard.press('Tab')
    choose(first, 1, 'I-PER')
    assert want[first][:2] == ['B-PER', 'I-PER']
    p.keyboard.press('ArrowLeft')
    p.keyboard.press('Enter')
    p.keyboard.press('Tab')
    choose(first, 0, 'O')
    assert want[first][:2] == ['O', 'B-PER']
    choose(first, 0, 'B-PER')
    assert want[first][:2] == ['B-PER', 'I-PER']
    # the tag that it has: looked at, and right
    p.locator(f'[data-word="{r.starts[second]+2}"]').focus()
    p.keyboard.press('Enter')
    p.keyboard.press('Tab')
    choose(second, 2, gold(second)[2])
    assert want[second] == valid(gold(second)) and p.locator('.corrected').count() == 2
    def saved():
        with p.expect_download() as d:
            p.locator('.corrections').focus()
            p.keyboard.press('Enter')
        assert d.value.suggested_filename == 'Sample-corrections.conll'
        d.value.save_as(tmp_path/'corrections.conll')
        return read_conll(tmp_path/'corrections.conll', Schema(('PER', 'LOC')))
    found, report = saved()
    assert found['tokens'][:] == [r.tokens[s] for s in sorted(want)] and tag_names(found) == [want[s] for s in sorted(want)]
    assert report.sentences == 2 and all(len(l.split('\t')) == 2 for l in (tmp_path/'corrections.conll').read_text().splitlines() if l)
    p.locator(f'[data-word="{r.starts[second]+2}"]').focus()
    p.locator('.drop').focus()
    p.keyboard.press('Enter')
    assert box(second).locator('tbody tr').count() == 3 and saved()[0]['tokens'][:] == [r.tokens[first]]
    assert not serious_faults(p) and not p.errors
    p.close()

def on_map(r):
    "Words of the map and their places, (N,) and (N, 2), as they are sent"
    sent = columns(r)['map']
    return np.frombuffer(sent['word'], np.int32), np.stack([np.frombuffer(sent[n], np.float32).astype(float) for n in 'xy'], 1)

def test_words_of_one_class_are_close_on_the_map():
    import torch
    r = text_of(60)
    some = [i for i in range(len(r.words)) if any(said[i] for said in r.said.values())]
    # the evaluator has three groups of words, each around a direction of its own
    group = torch.arange(len(r.words))%3
    noise = torch.randn(r.vectors.shape, generator=torch.Generator().manual_seed(0))
    r.vectors = torch.nn.functional.one_hot(group, r.vectors.shape[-1])[:, None].expand_as(noise)+.1*noise
    word, xy = on_map(r)
    assert word.tolist() == some and len(some) > 100
    far = np.hypot(*(xy[:, None]-xy).transpose(2, 0, 1))+1e9*np.eye(len(xy))
    assert (group[some].numpy()[far.argmin(1)] == group[some].numpy()).all()
    assert columns(r)['map'] == columns(r)['map']
    large = text_of(2000)
    word = np.frombuffer(columns(large)['map']['word'], np.int32)
    assert len(word) == 1000 and (np.diff(word) > 0).all() and word[-1] > .99*len(large.words)
    r.vectors = None
    assert columns(r)['map'] is None
    # three words in entities make a map, two make none
    for pair, there in ((['B-PER', 'O', 'B-PER', 'B-LOC'], True), (['B-PER', 'O', 'O', 'B-LOC'], False)):
        few = of([(pair, ['O']*4)])
        few.vectors = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0))
        assert bool(columns(few)['map']) == there

@needs_browser
def test_a_line_around_words_of_the_map(browser, tmp_path):
    r = text_of(60, 6)
    p = opened(browser, r, tmp_path)
    off = conflicts(r, 'recognizer', 'student').query('kind != "same"')
    canvas = p.locator('canvas')
    assert not canvas.is_visible()
    p.locator('.map summary').focus()
    p.keyboard.press('Enter')
    some, xy = on_map(r)
    low, high = xy.min(0), xy.max(0)
    scale = min((720-40)/(high-low)[0], (420-40)/(high-low)[1])
    at = np.stack([360+scale*(xy[:, 0]-(low+high)[0]/2), 210-scale*(xy[:, 1]-(low+high)[1]/2)], 1)
    # a dot that no other one touches has the colour of its type, which the legend names
    apart = [i for i in range(len(at)) if np.sort(np.hypot(*(at-at[i]).T))[1] > 10]
    keys = {x.inner_text(): x.evaluate('e => getComputedStyle(e).backgroundColor') for x in p.locator('.legend .key').all()}
    assert list(keys) == ['none', *r.types] and len(set(keys.values())) == 3
    def colour(i):
        pixel = 'p => [...document.querySelector("canvas").getContext("2d").getImageData(2*p[0], 2*p[1], 1, 1).data].slice(0, 3)'
        return 'rgb({}, {}, {})'.format(*p.evaluate(pixel, at[i].tolist()))
    def type_of(i, system): return r.tags[r.said[system][some[i]]][2:] or 'none'
    assert len(apart) > 5 and {type_of(i, 'student') for i in apart} == {'none', *r.types}
    assert all(colour(i) == keys[type_of(i, 'student')] for i in apart)
    # a triangle in the right half: half of the words are on its left, some above and below
    middle = np.median(at[:, 0])+.1
    corners = np.array([[middle, 5], [middle, 415], [at[:, 0].max()+5, 210]])
    side = [np.sign(np.cross(np.r_[corners[(k+1)%3]-corners[k], 0], np.c_[at-corners[k], np.zeros(len(at))])[:, 2]) for k in range(3)]
    chosen = np.abs(np.sum(side, 0)) == 3
    assert 0 < chosen.sum() < (at[:, 0] > middle).sum()
    def point(path):
        "The places of some points of the map in the window"
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        return [(box['x']+x*box['width']/720, box['y']+y*box['height']/420) for x, y in path]
    def drag(path):
        path = point(path)
        p.mouse.move(*path[0])
        p.mouse.down()
        for corner in path[1:]: p.mouse.move(*corner, steps=4)
        p.mouse.up()
    drag([*corners, corners[0]])
    sentences = set(np.searchsorted(r.starts, some[chosen], 'right')-1)
    here = off[off.sentence.isin(sentences)]
    assert 0 < len(here) < len(off) and shown_count(p) == (here.sentence.nunique(), len(here))
    assert f'{chosen.sum()} words in {len(sentences)} sentences' in p.locator('.map').inner_text()
    p.click('.release')
    assert shown_count(p) == (off.sentence.nunique(), len(off))
    drag([*corners, corners[0]])
    p.click('.clear')
    assert shown_count(p) == (off.sentence.nunique(), len(off)) and p.locator('.release').count() == 0
    # a click chooses nothing; a pointer over a dot names its word; colours are those of the second system
    drag(corners[:1])
    assert shown_count(p) == (off.sentence.nunique(), len(off))
    p.mouse.move(*point([at[apart[0]]])[0])
    assert p.locator('.map p').last.inner_text() == f'{r.words[some[apart[0]]]}: {type_of(apart[0], "student")} (student)'
    p.select_option('[data-key=b]', '0')
    assert all(colour(i) == keys[type_of(i, 'gold')] for i in apart) and 'text filter' in p.locator('.map').inner_text()
    assert not serious_faults(p) and not p.errors
    p.close()
    r.vectors = None
    p = opened(browser, r, tmp_path)
    assert p.locator('canvas').count() == 0
    p.close()

# JupyterLab's side of a widget, as far as this one uses it; what is sent goes through `kernel` to Python
MODEL = """const handlers = [], state = JSON.parse(await kernel('state'));
const arrived = s => new DataView(Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer);
const model = {
  on: (name, f) => handlers.push(f), off: () => {}, get: n => state[n], set: (n, v) => { state[n] = v; },
  save_changes: () => kernel('save', JSON.stringify(state)),
  send: async m => {
    for (const [content, buffers] of JSON.parse(await kernel('message', JSON.stringify(m))))
      for (const f of handlers) f(content, buffers.map(arrived));
  }};
"""

def with_kernel(browser, explorer):
    "The widget in a page, with its messages and traitlets in this process: only their way is not JupyterLab's"
    def kernel(what, content='null'):
        content, out = json.loads(content), []
        if what == 'state': return json.dumps({n: v for n, v in explorer.get_state().items() if n in ('flagged', 'corrections')})
        if what == 'save': return explorer.set_state(content)
        explorer.send = lambda m, buffers=None: out.append((m, [base64.b64encode(b).decode() for b in buffers or []]))
        explorer._handle_custom_msg(content, [])
        return json.dumps(out)
    p = browser.new_page(viewport=dict(width=1200, height=900))
    p.errors = []
    p.on('pageerror', lambda e: p.errors.append(str(e)))
    p.expose_function('kernel', kernel)
    program = (STATIC/'explorer.js').read_text(encoding='utf-8')
    style = (STATIC/'explorer.css').read_text(encoding='utf-8')
    p.set_content(f'<!doctype html><html lang="en"><title>Lab</title><style>{style}</style><main id="app"></main>'
        f'<script type="module">{program}\n{MODEL}\nrender({{model, el: document.getElementById("app")}});</script>')
    p.wait_for_selector('.count')
    return p

@needs_browser
def test_flags_and_corrections_come_back_to_the_kernel(browser):
    import traitlets
    r = text_of(20, 4)
    explorer = Explorer(r)
    explorer.corrections = {3: ['O']*len(r.tokens[3])}
    with pytest.raises(traitlets.TraitError, match='sentence 3: give each of its words one of the tags O, B-PER'):
        explorer.corrections = {3: ['O']}
    p = with_kernel(browser, explorer)
    p.locator('.flag').first.click()
    p.locator('article [data-word]').first.click()
    p.locator('.near li').first.wait_for()
    row, s = int(p.locator('[aria-expanded=true]').get_attribute('data-word')), articles(p)[0]
    assert p.locator('.near li bdi').all_inner_texts() == [r.words[i] for i, _ in nearest_words(r, [row])[0]]
    p.locator('[data-tag="I-LOC"]').click()
    p.wait_for_function('document.querySelector(".correct .drop")')
    gold = [r.tags[t] for t in r.said['gold'][r.starts[s]:r.starts[s+1]]]
    assert explorer.flagged == [s] and s != 3
    assert explorer.corrections == {3: ['O']*len(r.tokens[3]), s: valid(['I-LOC', *gold[1:]])} and not p.errors
    p.close()

def test_words_that_an_entity_touches():
    from mtmt.tagger import Entity
    from mtmt.widgets import _word_tags
    words = np.array([[0, 3], [4, 7], [8, 12]])
    def tags(*each): return _word_tags(words, [Entity('', t, b, e, 1.) for b, e, t in each])
    assert tags((0, 7, 'PER'), (8, 12, 'LOC')) == ['B-PER', 'I-PER', 'B-LOC']
    assert tags((4, 5, 'PER')) == ['O', 'B-PER', 'O'] and tags((3, 4, 'PER')) == ['O']*3
    # another tagger may cut a word in two, each part an entity
    assert tags((0, 2, 'PER'), (2, 9, 'LOC')) == ['B-LOC', 'I-LOC', 'I-LOC']

@needs_browser
def test_a_text_of_ones_own(browser, tagger, random_tagger):
    "Two taggers read what is typed; their grids are their entities, and what is no text is answered in words"
    explorer = Explorer(text_of(20, 4), taggers={'student': tagger, 'random': random_tagger})
    p = with_kernel(browser, explorer)
    field, own = p.locator('[data-key=own]'), p.locator('.own')
    whole = shown_count(p)
    def entities(i, row):
        "Words and type of each entity of a row of grid i"
        words, at, out = own.locator('.grid').nth(i).locator('thead th').all_inner_texts(), 0, []
        for cell in own.locator('.grid').nth(i).locator('tbody tr').nth(row).locator('td').all():
            size = int(cell.get_attribute('colspan'))
            if 'e' in (cell.get_attribute('class') or '').split(): out.append((' '.join(words[at:at+size]), cell.inner_text()))
            at += size
        assert at == len(words)
        return out
    text = 'Amina aliona katika Kano leo. Kofi na Juma waliondoka kwa Lagos leo.'
    field.fill(text)
    field.press('Enter')
    own.locator('.grid').nth(1).wait_for()
    assert own.locator('.grid').count() == 2 and own.locator('tbody tr').count() == 4
    assert own.locator('thead th').all_inner_texts() == re.findall(r'\w+|\.', text)
    assert own.locator('.grid').first.locator('th[scope=row]').all_inner_texts() == ['student', 'random']
    for row, reads in enumerate((tagger, random_tagger)):
        want = [(e.text, e.type) for e in reads(text).entities]
        assert want and [*entities(0, row), *entities(1, row)] == want
    # keys that move in the list are letters here, and the list stays
    field.fill('')
    field.press_sequentially('fnp/ Kano')
    assert field.input_value() == 'fnp/ Kano' and shown_count(p) == whole and explorer.flagged == []
    for wrong, message in ((' ', 'There is no word to read: type a sentence.'),
        ('\u0416\u0438\u0437\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u0430', 'student does not know the characters of 100 % of these words.')):
        field.fill(wrong)
        own.locator('.read').click()
        own.locator('.error', has_text=message).wait_for()
        assert own.locator('.grid').count() == 0
    field.fill('Amina aliona Kano leo na Kofi katika Lagos <img src=x onerror="window.hit=1">')
    field.press('Enter')
    own.locator('th', has_text='onerror').wait_for()
    assert p.evaluate('window.hit') is None and own.locator('img').count() == 0
    assert not serious_faults(p) and not p.errors
    p.close()
    # without taggers there is no field
    p = with_kernel(browser, Explorer(text_of(5)))
    assert p.locator('.own').count() == 0
    p.close()

@needs_browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_contrast_of_everything_shown(browser, tmp_path, scheme):
    p = opened(browser, text_of(30, 2), tmp_path, color_scheme=scheme)
    p.locator('.heat button').nth(7).click()
    p.locator('.often button').first.click()
    p.locator('[data-word]').first.click()
    p.locator('[data-tag]').nth(1).click()
    p.locator('.flag').first.click()
    for summary in p.locator('summary').all(): summary.click()
    assert all(p.locator(x).first.is_visible() for x in ('.corrected', '.drop', '.key', 'dt', '.clear', 'canvas', '.why'))
    n, bad = p.locator('.mtmt').evaluate(CONTRAST)
    assert n > 60 and not bad, bad[:5]
    assert not serious_faults(p)
    # a type's name stands wherever its colour does
    assert {x.inner_text().strip() for x in p.locator('td.e').all()} <= {'PER', 'LOC'}
    p.close()

PAYLOADS = ['<script>window.hit=1</script>', '<img src=x onerror="window.hit=1">', '" onmouseover="window.hit=1" x="',
    "' autofocus onfocus='window.hit=1", '</script><script>window.hit=1</script>', '<!--', ']]>', '&lt;b&gt;', 'javascript:window.hit=1',
    '\u202eevil', '\u2066x\u2069', '${window.hit=1}', '=HYPERLINK("http://x.example")', '\u2028', 'a\u0000b']
hostile = st.one_of(st.sampled_from(PAYLOADS), st.text(st.characters(exclude_categories=['Cs', 'Zs', 'Cc']), min_size=1, max_size=8),
    st.tuples(st.sampled_from(PAYLOADS), st.sampled_from(PAYLOADS)).map(''.join))

@needs_browser
def test_nothing_from_a_file_becomes_markup(browser, tmp_path):
    "Words, types, systems, languages and the title: what is shown is their text, with nothing invisible"
    context = browser.new_context()
    p = context.new_page()
    asked, dialogs = [], []
    p.on('request', lambda q: asked.append(q.url))
    p.on('dialog', lambda d: (dialogs.append(d.message), d.dismiss()))
    written = lambda s: ''.join(f'[U+{ord(c):04X}]' if unicodedata.category(c) in ('Cc', 'Cf', 'Zl', 'Zp')
        and c not in '\u200c\u200d' else c for c in s)
    @settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(st.lists(hostile, min_size=3, max_size=6), hostile, hostile, hostile, hostile)
    def holds(words, kind, system, language, name):
        kind = re.sub(r'\s', '_', kind)
        r = readings([words], {'gold': [[f'B-{kind}', *['O']*(len(words)-1)]], f's{system}': [['O']*len(words)]}, languages=[language],
            name=name)
        p.goto('about:blank')
        p.set_content(page(r))
        p.wait_for_selector('article', timeout=10_000)
        p.locator('[data-word]').first.click()
        p.locator('[data-word]').first.hover()
        assert p.evaluate('window.hit') is None and not dialogs
        assert p.evaluate(
            '[...document.querySelectorAll(".mtmt *")].every(e => !["SCRIPT","IMG","IFRAME","STYLE","LINK","OBJECT"].includes(e.tagName) '
            '&& [...e.attributes].every(a => !a.name.startsWith("on") && a.name !== "autofocus"))')
        assert p.locator('[data-word]').all_text_contents() == [written(w) for w in words]
        assert p.locator('h2').text_content() == (written(name) or 'Disagreements')
        assert not re.search('[\u202a-\u202e\u2066-\u2069]', p.locator('.mtmt').evaluate(
            'e => e.outerHTML')), 'a bidi control is on the page'
    holds()
    assert all(u.startswith(('about:', 'blob:', 'data:')) for u in asked)
    context.close()

@needs_browser
def test_cells_of_the_table_are_no_formulas(browser, tmp_path):
    p = opened(browser, readings([['=1+1', '@x', 'plain', '-2', '+a']], dict(gold=[['B-X', 'B-X', 'O', 'O', 'B-X']], student=[['O']*5])),
        tmp_path)
    with p.expect_download() as d: p.locator('.csv').click()
    assert [row[4] for row in list(csv.reader(io.open(d.value.path(), encoding='utf-8', newline='')))[1:]] == ["'=1+1", "'@x", "'+a"]
    p.close()

@needs_browser
def test_twenty_thousand_sentences(browser, tmp_path):
    "Opens and filters while one waits; the limits allow for a slow and busy machine"
    import time
    base = text_of(2000, 3)
    r = readings(base.tokens*10, {}, tags=base.tags, languages=base.languages*10)
    tile = lambda v: np.concatenate([v]*10)
    r.said = {n: tile(v) for n, v in base.said.items()} | {f'{n}-2': tile(np.roll(base.said[n], 1)) for n in ('recognizer', 'student')}
    r.probabilities = {n: tile(v) for n, v in base.probabilities.items()} | {f'{n}-2': tile(np.roll(v, 1, 0))
        for n, v in base.probabilities.items()}
    r.known = base.known
    start = time.perf_counter()
    columns(r)
    python = time.perf_counter()-start
    p = opened(browser, r, tmp_path)
    about = lambda: p.locator('.mtmt').evaluate('e => ({...e.dataset})')
    took = [float(about()['opened'])]
    filters = []
    for key, v in (('type', '1'), ('seen', '0'), ('language', '1'), ('order', 'text'), ('a', '0')):
        p.select_option(f'[data-key={key}]', v)
        filters.append(float(about()['filtered']))
    print(f'columns {python:.2f} s, opened {took[0]:.0f} ms, filtered {filters} ms')
    assert len(r.tokens) == 20_000 and len(r.said) == 5
    assert python < 6 and took[0] < 4000 and sorted(filters)[2] < 100
    p.close()
