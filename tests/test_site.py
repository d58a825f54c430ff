"The site and JupyterLab, as a person opens them."
import json, os, re, shutil, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT

CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
FLAGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync').split()
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='no Chromium on the PATH (Debian: apt install chromium)')

# every text that is shown against the ground it stands on: how many, and those under 4.5 (WCAG AA)
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
    for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
    return [255, 255, 255, 0];
  };
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), bad = [];
  let n = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
    n++;
    const text = luminance(rgba(getComputedStyle(e).color).slice(0, 3)), behind = luminance(ground(e).slice(0, 3));
    const ratio = (Math.max(text, behind)+.05)/(Math.min(text, behind)+.05);
    if (ratio < 4.5) bad.push([walk.currentNode.data, e.className, ratio]);
  }
  return [n, bad]; }"""

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The project's site, built offline in a copy"
    top = tmp_path_factory.mktemp('site')/'mtmt'
    shutil.copytree(ROOT, top, symlinks=True, ignore=shutil.ignore_patterns('.git', '.venv', 'runs', '_docs', '_proc', 'build',
        '__pycache__', 'encoder'))
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin')
    done = subprocess.run([sys.executable, '.ci/build_docs.py'], cwd=top, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return top/'_docs'

def test_pages_are_whole_and_ask_no_other_host(site):
    pages = sorted(site.rglob('*.html')); names = {str(p.relative_to(site)) for p in pages}
    assert {'index.html', '12_losses.html', '60_runs.html', 'experiments/distill.html', 'experiments/corpus_table.html'} <= names
    for p in pages:
        html = p.read_text(encoding='utf-8')
        asked = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="((?:https?:)?//[^"]+)"',
            html)+re.findall(r'<link[^>]*rel="(?:stylesheet|preload|icon)"[^>]*href="((?:https?:)?//[^"]+)"',
            html)+re.findall(r'@import\s+url\(([^)]*//[^)]*)\)', html)
        assert not asked, f'{p.name}: {asked}'
        for href in re.findall(r'<a[^>]*class="reference internal"[^>]*href="([^"#]+\.html)', html):
            assert (p.parent/href).exists(), f'{p.name} -> {href}'
    losses = (site/'12_losses.html').read_text()
    assert '<math' in losses and '<svg' in losses and '#|' not in re.sub(r'<script.*?</script>', '', losses,
        flags=re.S) and 'callout' not in losses and '[source]' not in losses
    assert re.search(r'<a[^>]*href="https://github.com/[^"]*mtmt/losses.py[^"]*"[^>]*>source', losses), 'the API links to its source'

@needs_browser
def test_pages_in_a_browser(site):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1300, height=1000))
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        for name in ('index.html', '12_losses.html', 'experiments/distill.html'):
            page.goto((site/name).as_uri()); page.wait_for_load_state('load'); assert page.locator('h1').count() == 1
        assert page.locator('svg.marks, img[src$=".svg"]').count() >= 1 and page.locator('mark').count() >= 1
        page.get_by_role('link', name='Losses').first.click(); page.wait_for_load_state('load'); assert page.locator('math').count() > 10
        assert not [u for u in asked if not u.startswith(('file://', 'data:'))]; browser.close()

def until(true, timeout=90):
    "Wait for something to be true; an exception is a not yet"
    end = time.monotonic()+timeout
    while time.monotonic() < end:
        try:
            if value := true(): return value
        except Exception as e: last = e
        time.sleep(.3)
    raise TimeoutError

@contextmanager
def lab(tmp_path, notebook, parameters, more=(), theme='JupyterLab Light'):
    "JupyterLab, started on a copy of a notebook of this project; every cell is run, and the page and the requests it made are given"
    from playwright.sync_api import sync_playwright
    work = tmp_path/'work'; work.mkdir(); nb = json.loads((ROOT/'nbs'/notebook).read_text()); name = Path(notebook).name
    cell = next(c for c in nb['cells'] if 'parameters' in c['metadata'].get('tags', []))
    cell['source'] = [''.join(cell['source'])+'\n'+'\n'.join(f'{k} = {v!r}' for k, v in parameters.items())]
    for c in nb['cells']:
        if c['cell_type'] == 'code': c['outputs'] = []
    nb['cells'] += [dict(cell_type='code', id=f'more{i}', metadata={}, outputs=[], execution_count=None, source=[s])
        for i, s in enumerate(more)]
    (work/name).write_text(json.dumps(nb))
    for n, d in {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
        'notebook-extension/tracker': dict(windowingMode='none'), 'apputils-extension/themes': dict(theme=theme)}.items():
        f = tmp_path/'settings'/'@jupyterlab'/f'{n}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(d))
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    url, dirs = f'http://127.0.0.1:{port}', dict(JUPYTER_CONFIG_DIR='cfg', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='run',
        IPYTHONDIR='ipy', JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='ws')
    with (tmp_path/'lab.log').open('w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}',
            '--IdentityProvider.token=t', f'--ServerApp.root_dir={work}'], cwd=work, stdout=log, stderr=log,
            env=dict(os.environ, PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            **{k: str(tmp_path/v) for k, v in dirs.items()}))
    api = lambda x: json.load(urllib.request.urlopen(f'{url}/api/{x}?token=t', timeout=5))
    try:
        until(lambda: api('status'))
        with sync_playwright() as pw:
            browser = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport=dict(width=1300, height=2600))
            asked = []
            page.on('request', lambda r: asked.append(r.url))
            page.goto(f'{url}/lab/tree/{name}?token=t')
            page.locator('.jp-Notebook .jp-Cell').first.wait_for(timeout=90_000)
            until(lambda: any(s['kernel']['execution_state'] == 'idle' and s['kernel']['connections'] for s in api('sessions')))
            page.get_by_role('menuitem', name='Run', exact=True).click()
            page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
            prompts = page.locator('.jp-CodeCell .jp-InputPrompt')
            errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
            until(lambda: errors.count() or all(re.fullmatch(r'\[\d+\]:', x.strip()) for x in prompts.all_inner_texts()), 240)
            assert not errors.count(), errors.first.inner_text()
            yield page
            assert not [u for u in asked if '127.0.0.1' not in u and not u.startswith(('data:', 'blob:', 'about:'))]; browser.close()
    finally: server.terminate(); server.wait(20)

@pytest.fixture
def small_run(small_files, tmp_path, tiny_encoder):
    "Parameters of a run of seconds"
    return dict(benchmark='files', target='sw', data_dir=str(small_files), encoder=tiny_encoder, out_dir=str(tmp_path/'runs'),
        options=dict(max_length=32))

@pytest.mark.slow
@needs_browser
def test_stepping_through_in_jupyterlab(small_run, tmp_path):
    "JupyterLab opens the experiment, runs every cell and shows table, chart and sentences; no request leaves this machine"
    with lab(tmp_path, 'experiments/distill.ipynb', small_run) as page:
        assert page.locator('.jp-RenderedSVG').count() >= 1 and page.locator('.jp-RenderedHTML table').count() >= 1 and page.get_by_text(
            'mtmt|scheme:IOB2').count() >= 1

@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize('theme', ['JupyterLab Light', 'JupyterLab Dark'])
def test_exploring_in_jupyterlab(small_run, tmp_path, theme):
    "The tutorial, run whole; then the explorer in it: filters, a word, neighbours from the kernel, flags, both exports, contrast"
    with lab(tmp_path, 'tutorials/why_did_the_student_learn_this.ipynb', small_run, ['print("flagged", explorer.flagged)'], theme) as page:
        x = page.locator('.jp-OutputArea-output .mtmt').first
        x.wait_for()
        x.scroll_into_view_if_needed()
        count = lambda: x.locator('.count').inner_text()
        x.locator('[data-key=a]').select_option('0'); whole = count(); assert re.match(r'[1-9]\d* sentence', whole)
        for key, v, back in (('type', '1', '0'), ('seen', '0', ''), ('order', 'text', 'divergence')):
            x.locator(f'[data-key={key}]').select_option(v)
            x.locator(f'[data-key={key}]').select_option(back)
        for k in ('missed', 'spurious', 'boundary', 'type'): x.locator(f'[data-kind={k}]').click(); x.locator(f'[data-kind={k}]').click()
        x.locator('[data-key=gap]').evaluate('e => { e.value = 1; e.dispatchEvent(new Event("input", {bubbles: true})); }')
        assert count() != whole
        x.locator('[data-key=gap]').evaluate('e => { e.value = 0; e.dispatchEvent(new Event("input", {bubbles: true})); }')
        x.locator('[data-key=text]').fill('no such word')
        assert count() == '0 sentences, 0 places'
        x.locator('[data-key=text]').fill('')
        assert count() == whole
        x.locator('[data-word]').first.click()
        x.locator('.near li').first.wait_for()
        assert x.locator('.trusts .p').count() == 3 and x.locator('.why h3').first.inner_text() == 'gold'
        x.locator('[data-word]').first.focus()
        cells = page.locator('.jp-Cell').count()
        [page.keyboard.press(k) for k in ('Escape', 'f', 'n', 'f', 'b', 'x')]
        assert page.locator('.jp-Cell').count() == cells, 'a shortcut of JupyterLab took a key'
        flagged = sorted(int(a.get_attribute('data-sentence')) for a in x.locator('article:has(.flag[aria-pressed=true])').all())
        assert len(flagged) == 2
        for kind in ('conll', 'csv'):
            with page.expect_download() as d: x.locator(f'.{kind}').click()
            assert len(Path(d.value.path()).read_text().split('\n')) > 3
        n, bad = x.evaluate(CONTRAST); assert n > 40 and not bad, bad[:5]
        if picture := os.environ.get('MTMT_SCREENSHOT'): x.screenshot(path=f'{picture}-{theme.split()[1].lower()}.png')
        page.locator('.jp-CodeCell').last.locator('.cm-content').click()
        page.keyboard.press('Shift+Enter')
        until(lambda: f'flagged {flagged}' in page.locator('.jp-CodeCell').nth(-2).inner_text()
            +page.locator('.jp-CodeCell').last.inner_text(), 30)
