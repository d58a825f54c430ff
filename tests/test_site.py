"The site and JupyterLab, as a person opens them."
import json, os, re, shutil, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from conftest import ROOT

CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
FLAGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync').split()
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='no Chromium (Debian: apt install chromium)')

# Contrast of every visible text with its background: how many texts, and those under 4.5 (WCAG AA)
CONTRAST = """root => {
  const luminance = c => {
    const [r, g, b] = c.map(x => (x /= 255) <= .04045 ? x/12.92 : ((x+.055)/1.055)**2.4);
    return .2126*r+.7152*g+.0722*b;
  };
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = s => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = s; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255, 0];
  };
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), bad = [];
  let n = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
    n++;
    const text = luminance(rgba(getComputedStyle(e).color).slice(0, 3));
    const behind = luminance(ground(e).slice(0, 3));
    const ratio = (Math.max(text, behind)+.05)/(Math.min(text, behind)+.05);
    if (ratio < 4.5) bad.push([walk.currentNode.data, e.className, ratio]);
  }
  return [n, bad]; }"""

def serious_faults(page):
    "What axe-core calls a serious or critical fault of accessibility, with the first place of each"
    from axe_playwright_python.sync_playwright import Axe
    found = Axe().run(page).response['violations']
    return [(fault['id'], fault['nodes'][0]['html'][:200]) for fault in found if fault['impact'] in ('serious', 'critical')]

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The project's site, built offline in a copy"
    top = tmp_path_factory.mktemp('site')/'mtmt'
    leave_out = ('.git', '.venv', 'runs', '_docs', '_proc', 'build', '__pycache__')
    shutil.copytree(ROOT, top, symlinks=True, ignore=shutil.ignore_patterns(*leave_out))
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin')
    command = [sys.executable, '.ci/build_docs.py']
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return top/'_docs'

def asked_of_others(html):
    "Addresses of other hosts that a page would fetch"
    patterns = (r'<(?:script|img|iframe|source)[^>]*\ssrc="((?:https?:)?//[^"]+)"',
        r'<link[^>]*rel="(?:stylesheet|preload|icon)"[^>]*href="((?:https?:)?//[^"]+)"',
        r'@import\s+url\(([^)]*//[^)]*)\)')
    return [address for pattern in patterns for address in re.findall(pattern, html)]

def test_pages_are_whole_and_ask_no_other_host(site):
    pages = sorted(site.rglob('*.html'))
    names = {str(p.relative_to(site)) for p in pages}
    experiments = {'experiments/distill.html', 'experiments/methods_table.html', 'experiments/corrections.html',
        'experiments/source_ranks.html'}
    assert {'index.html', '12_losses.html', '60_runs.html', *experiments} <= names
    for path in pages:
        html = path.read_text(encoding='utf-8')
        asked = asked_of_others(html)
        assert not asked, f'{path.name}: {asked}'
        for href in re.findall(r'<a[^>]*class="reference internal"[^>]*href="([^"#]+\.html)', html):
            assert (path.parent/href).exists(), f'{path.name} -> {href}'

def test_every_link_of_the_site_leads_somewhere(site):
    "To a page that is there, and to a place on it; addresses of others are not asked"
    places = {path: set(re.findall(r'\sid="([^"]+)"', path.read_text(encoding='utf-8'))) for path in site.rglob('*.html')}
    wrong = set()
    for path in places:
        for href in re.findall(r'<a[^>]*\shref="([^"]+)"', path.read_text(encoding='utf-8')):
            if re.match(r'[a-z]+:|//', href): continue
            name, _, place = href.partition('#')
            to = (path.parent/unquote(name)).resolve() if name else path
            if not to.exists() or (place and unquote(place) not in places.get(to, {unquote(place)})): wrong.add((path.name, href))
    assert not wrong

def test_tables_look_alike(site):
    "Those of pandas are styled like the others"
    html = (site/'tutorials'/'choose_sources.html').read_text(encoding='utf-8')
    assert html.count('<table class="dataframe docutils align-default">') == 3
    assert not [path.name for path in site.rglob('*.html') if '<table border="1"' in path.read_text(encoding='utf-8')]

def test_a_chapter_on_the_site(site):
    "Formulas, charts and links to the source are there; what nbdev and Quarto need to know is not"
    losses = (site/'12_losses.html').read_text(encoding='utf-8')
    visible = re.sub(r'<script.*?</script>', '', losses, flags=re.S)
    assert '<math' in losses and '<svg' in losses
    assert '#|' not in visible and 'callout' not in losses and '[source]' not in losses
    assert re.search(r'<a[^>]*href="https://github.com/[^"]*mtmt/losses.py[^"]*"[^>]*>source', losses), \
        'the API links to its source'

@needs_browser
def test_pages_in_a_browser(site):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1300, height=1000))
        asked = []
        page.on('request', lambda request: asked.append(request.url))
        for name in ('index.html', '12_losses.html', 'experiments/distill.html'):
            page.goto((site/name).as_uri())
            page.wait_for_load_state('load')
            assert page.locator('h1').count() == 1
        assert page.locator('svg.marks, img[src$=".svg"]').count() >= 1
        assert page.locator('mark').count() >= 1
        page.get_by_role('link', name='Losses').first.click()
        page.wait_for_load_state('load')
        assert page.locator('math').count() > 10
        assert not [url for url in asked if not url.startswith(('file://', 'data:'))]
        browser.close()

@needs_browser
def test_the_search_of_the_site_finds(site):
    from playwright.sync_api import sync_playwright
    wanted = dict(glossary='Glossary', cite='mtmt', Recognizer='Teachers')
    wanted['low-resource'] = 'Glossary'
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        for words, title in wanted.items():
            page.goto((site/'search.html').as_uri()+f'?q={words}')
            page.locator('ul.search li a').first.wait_for()
            assert title in page.locator('ul.search li a').all_inner_texts(), words
        browser.close()

@needs_browser
@pytest.mark.parametrize('scheme, width', [('light', 1300), ('dark', 400), pytest.param('light', 400, marks=pytest.mark.slow),
    pytest.param('dark', 1300, marks=pytest.mark.slow)])
def test_pages_have_no_serious_fault_of_accessibility(site, scheme, width):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        for name in ('index.html', '12_losses.html', '70_widgets.html', 'experiments/methods_table.html', 'howto/results.html',
            'tutorials/choose_sources.html', 'reference/api.html'):
            page.goto((site/name).as_uri())
            page.wait_for_load_state('load')
            assert not serious_faults(page), name
        browser.close()

def until(true, timeout=90):
    "Wait for something to be true; an exception means not yet"
    end, error = time.monotonic()+timeout, None
    while time.monotonic() < end:
        try:
            if value := true(): return value
        except Exception as e: error = e
        time.sleep(.3)
    raise TimeoutError(f'not true after {timeout} s') from error

def with_parameters(notebook, parameters, more):
    "A notebook of this project, to be run with these parameters and these cells at its end"
    out = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))
    cell = next(c for c in out['cells'] if 'parameters' in c['metadata'].get('tags', []))
    lines = [''.join(cell['source']), *(f'{k} = {v!r}' for k, v in parameters.items())]
    cell['source'] = ['\n'.join(lines)]
    for c in out['cells']:
        if c['cell_type'] == 'code': c['outputs'] = []
    empty = dict(cell_type='code', metadata={}, outputs=[], execution_count=None)
    out['cells'] += [empty | dict(id=f'more{i}', source=[s]) for i, s in enumerate(more)]
    return out

def write_settings(folder, theme):
    "JupyterLab's settings: no news, every cell drawn, a theme"
    quiet = dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True)
    settings = {'apputils-extension/notification': quiet,
        'notebook-extension/tracker': dict(windowingMode='none'),
        'apputils-extension/themes': dict(theme=theme)}
    for name, values in settings.items():
        path = folder/'@jupyterlab'/f'{name}.jupyterlab-settings'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

@contextmanager
def server(tmp_path, work):
    "JupyterLab on a folder: its address, and what asks its API"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    url = f'http://127.0.0.1:{port}'
    folders = dict(JUPYTER_CONFIG_DIR='cfg', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='run',
        IPYTHONDIR='ipy', JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='ws')
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        **{name: str(tmp_path/folder) for name, folder in folders.items()})
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1',
        f'--port={port}', '--IdentityProvider.token=t', f'--ServerApp.root_dir={work}']
    with (tmp_path/'lab.log').open('w') as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log, env=env)
    api = lambda what: json.load(urllib.request.urlopen(f'{url}/api/{what}?token=t', timeout=5))
    try:
        until(lambda: api('status'))
        yield url, api
    finally:
        process.terminate()
        process.wait(20)

def run_all(page, api):
    "Run every cell of the notebook on a page; none may fail"
    idle = lambda kernel: kernel['execution_state'] == 'idle' and kernel['connections']
    until(lambda: any(idle(s['kernel']) for s in api('sessions')))
    for name in ('Run', 'Run All Cells'): page.get_by_role('menuitem', name=name, exact=True).click()
    prompts = page.locator('.jp-CodeCell .jp-InputPrompt')
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
    done = lambda: all(re.fullmatch(r'\[\d+\]:', x.strip()) for x in prompts.all_inner_texts())
    until(lambda: errors.count() or done(), 600)
    assert not errors.count(), errors.first.inner_text()

@contextmanager
def opened_lab(tmp_path, name, notebook, theme='JupyterLab Light'):
    "A notebook, given by its contents, open in JupyterLab: the page, and what asks the API. It may ask no other host"
    from playwright.sync_api import sync_playwright
    work = tmp_path/'work'
    work.mkdir()
    (work/name).write_text(json.dumps(notebook))
    write_settings(tmp_path/'settings', theme)
    with server(tmp_path, work) as (url, api), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1300, height=2600))
        asked = []
        page.on('request', lambda request: asked.append(request.url))
        page.goto(f'{url}/lab/tree/{name}?token=t')
        page.locator('.jp-Notebook .jp-Cell').first.wait_for(timeout=90_000)
        yield page, api
        assert not [u for u in asked if '127.0.0.1' not in u and not u.startswith(('data:', 'blob:', 'about:'))]
        browser.close()

@contextmanager
def lab(tmp_path, notebook, parameters, more=(), theme='JupyterLab Light'):
    "A notebook of this project, run whole in JupyterLab: the page"
    with opened_lab(tmp_path, Path(notebook).name, with_parameters(notebook, parameters, more), theme) as (page, api):
        run_all(page, api)
        yield page

@pytest.fixture
def small_run(small_files, tmp_path, tiny_encoder):
    "Parameters of a run of seconds"
    return dict(benchmark='files', target='sw', data_dir=str(small_files), encoder=tiny_encoder,
        out_dir=str(tmp_path/'runs'), options=dict(max_length=32))

@pytest.mark.slow
@needs_browser
def test_the_first_notebook_of_a_newcomer(tmp_path):
    "Start here, run whole: two systems that find something, a tagged sentence, and an explorer that answers"
    with lab(tmp_path, 'start_here.ipynb', dict(out_dir=str(tmp_path/'runs'))) as page:
        table = page.locator('.jp-RenderedHTML table').first.locator('tbody tr').all_inner_texts()
        f1 = {row.split()[1]: float(row.split()[2]) for row in table}
        assert f1.keys() == {'direct', 'tsl'} and min(f1.values()) > 20
        assert page.locator('.jp-OutputArea-output mark', has_text='Nyeri').count() == 1
        explorer = page.frame_locator('iframe').locator('.mtmt')
        assert re.match(r'[1-9]\d* sentence', number_shown(explorer))
        explorer.locator('[data-word]').first.click()
        assert explorer.locator('.why h3').count() >= 2

@pytest.mark.slow
@needs_browser
def test_charts_show_before_a_notebook_is_trusted(tmp_path):
    "JupyterLab trusts no output that it has not computed: the chart stands there as PNG"
    name = '12_losses.ipynb'
    with opened_lab(tmp_path, name, json.loads((ROOT/'nbs'/name).read_text(encoding='utf-8'))) as (page, _):
        picture = page.locator('.jp-RenderedImage img[src^="data:image/png"]').first
        picture.wait_for()
        assert picture.bounding_box()['width'] > 200 and not page.locator('.jp-RenderedSVG').count()

@pytest.mark.slow
@needs_browser
def test_stepping_through_in_jupyterlab(small_run, tmp_path):
    "JupyterLab opens the experiment, runs every cell and shows table, chart and sentences"
    with lab(tmp_path, 'experiments/distill.ipynb', small_run) as page:
        assert page.locator('.jp-RenderedSVG').count() >= 1
        assert page.locator('.jp-RenderedHTML table').count() >= 1
        assert page.get_by_text('mtmt|scheme:IOB2').count() >= 1

def number_shown(explorer): return explorer.locator('.count').inner_text()

def check_filters(explorer):
    "Each filter can be set and taken back; some of them change what is shown"
    explorer.locator('[data-key=a]').select_option('0')
    whole = number_shown(explorer)
    assert re.match(r'[1-9]\d* sentence', whole)
    for key, value, back in (('type', '1', '0'), ('seen', '0', ''), ('order', 'text', 'divergence')):
        explorer.locator(f'[data-key={key}]').select_option(value)
        explorer.locator(f'[data-key={key}]').select_option(back)
    for kind in ('missed', 'spurious', 'boundary', 'type'):
        for _ in ('on', 'off'): explorer.locator(f'[data-kind={kind}]').click()
    slide = 'e => { e.value = %d; e.dispatchEvent(new Event("input", {bubbles: true})); }'
    explorer.locator('[data-key=gap]').evaluate(slide % 1)
    assert number_shown(explorer) != whole
    explorer.locator('[data-key=gap]').evaluate(slide % 0)
    explorer.locator('[data-key=text]').fill('no such word')
    assert number_shown(explorer) == '0 sentences, 0 places'
    explorer.locator('[data-key=text]').fill('')
    assert number_shown(explorer) == whole

def check_a_word(explorer):
    "A click on a word shows its probabilities, weights and neighbours, which come from the kernel"
    explorer.locator('[data-word]').first.click()
    explorer.locator('.near li').first.wait_for()
    assert explorer.locator('.trusts .p').count() == 3
    assert explorer.locator('.why h3').first.inner_text() == 'gold'

def flag_two(page, explorer):
    "Flag two sentences with keys, which JupyterLab leaves to the explorer: their numbers"
    explorer.locator('[data-word]').first.focus()
    cells = page.locator('.jp-Cell').count()
    for key in ('Escape', 'f', 'n', 'f', 'b', 'x'): page.keyboard.press(key)
    assert page.locator('.jp-Cell').count() == cells, 'a shortcut of JupyterLab took a key'
    articles = explorer.locator('article:has(.flag[aria-pressed=true])').all()
    flagged = sorted(int(a.get_attribute('data-sentence')) for a in articles)
    assert len(flagged) == 2
    return flagged

@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize('theme', ['JupyterLab Light', 'JupyterLab Dark'])
def test_exploring_in_jupyterlab(small_run, tmp_path, theme):
    "The tutorial, run whole; then the explorer in it: filters, a word, flags, both exports, contrast"
    tutorial, more = 'tutorials/why_did_the_student_learn_this.ipynb', ['print("flagged", explorer.flagged)']
    with lab(tmp_path, tutorial, small_run, more, theme) as page:
        explorer = page.locator('.jp-OutputArea-output .mtmt').first
        explorer.wait_for()
        explorer.scroll_into_view_if_needed()
        check_filters(explorer)
        check_a_word(explorer)
        flagged = flag_two(page, explorer)
        for kind in ('conll', 'csv'):
            with page.expect_download() as download: explorer.locator(f'.{kind}').click()
            assert len(Path(download.value.path()).read_text(encoding='utf-8').split('\n')) > 3
        count, bad = explorer.evaluate(CONTRAST)
        assert count > 40 and not bad, bad[:5]
        if picture := os.environ.get('MTMT_SCREENSHOT'):
            explorer.screenshot(path=f'{picture}-{theme.split()[1].lower()}.png')
        page.locator('.jp-CodeCell').last.locator('.cm-content').click()
        page.keyboard.press('Shift+Enter')
        last_two = lambda: ''.join(page.locator('.jp-CodeCell').nth(i).inner_text() for i in (-2, -1))
        until(lambda: f'flagged {flagged}' in last_two(), 30)
