"The site and JupyterLab, as a person opens them."
import json, os, re, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

from conftest import ROOT

CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='no Chromium on the PATH (Debian: apt install chromium)')

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The project's site, built offline in a copy"
    top = tmp_path_factory.mktemp('site')/'mtmt'
    shutil.copytree(ROOT, top, symlinks=True, ignore=shutil.ignore_patterns('.git', '.venv', 'runs', '_docs', '_proc', 'build', '__pycache__', 'encoder'))
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin')
    done = subprocess.run([sys.executable, '.ci/build_docs.py'], cwd=top, capture_output=True, text=True, env=env); assert done.returncode == 0, done.stderr[-3000:]
    return top/'_docs'

def test_pages_are_whole_and_ask_no_other_host(site):
    pages = sorted(site.rglob('*.html')); names = {str(p.relative_to(site)) for p in pages}
    assert {'index.html', '12_losses.html', '60_runs.html', 'experiments/distill.html', 'experiments/corpus_table.html'} <= names
    for p in pages:
        html = p.read_text(encoding='utf-8')
        asked = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="((?:https?:)?//[^"]+)"', html)+re.findall(r'<link[^>]*rel="(?:stylesheet|preload|icon)"[^>]*href="((?:https?:)?//[^"]+)"', html)+re.findall(r'@import\s+url\(([^)]*//[^)]*)\)', html)
        assert not asked, f'{p.name}: {asked}'
        for href in re.findall(r'<a[^>]*class="reference internal"[^>]*href="([^"#]+\.html)', html): assert (p.parent/href).exists(), f'{p.name} -> {href}'
    losses = (site/'12_losses.html').read_text()
    assert '<math' in losses and '<svg' in losses and '#|' not in re.sub(r'<script.*?</script>', '', losses, flags=re.S) and 'callout' not in losses and '[source]' not in losses
    assert re.search(r'<a[^>]*href="https://github.com/[^"]*mtmt/losses.py[^"]*"[^>]*>source', losses), 'the API links to its source'

@needs_browser
def test_pages_in_a_browser(site):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS); page = browser.new_page(viewport=dict(width=1300, height=1000)); asked = []
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

@pytest.mark.slow
@needs_browser
def test_stepping_through_in_jupyterlab(small_files, tmp_path, tiny_encoder):
    "JupyterLab opens the experiment, runs every cell and shows table, chart and sentences; no request leaves this machine"
    from playwright.sync_api import sync_playwright
    work = tmp_path/'work'; work.mkdir(); nb = json.loads((ROOT/'nbs/experiments/distill.ipynb').read_text())
    cell = next(c for c in nb['cells'] if 'parameters' in c['metadata'].get('tags', []))
    given = dict(benchmark='files', target='sw', data_dir=str(small_files), encoder=tiny_encoder, out_dir=str(tmp_path/'runs'), options=dict(max_length=32))
    cell['source'] = [''.join(cell['source'])+'\n'+'\n'.join(f'{k} = {v!r}' for k, v in given.items())]
    for c in nb['cells']:
        if c['cell_type'] == 'code': c['outputs'] = []
    (work/'distill.ipynb').write_text(json.dumps(nb))
    for name, d in {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True), 'notebook-extension/tracker': dict(windowingMode='none')}.items():
        f = tmp_path/'settings'/'@jupyterlab'/f'{name}.jupyterlab-settings'; f.parent.mkdir(parents=True, exist_ok=True); f.write_text(json.dumps(d))
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    url, dirs = f'http://127.0.0.1:{port}', dict(JUPYTER_CONFIG_DIR='cfg', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='run', IPYTHONDIR='ipy', JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='ws')
    with (tmp_path/'lab.log').open('w') as log:
        lab = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--IdentityProvider.token=t', f'--ServerApp.root_dir={work}'],
                               cwd=work, stdout=log, stderr=log, env=dict(os.environ, PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', **{k: str(tmp_path/v) for k, v in dirs.items()}))
    api = lambda x: json.load(urllib.request.urlopen(f'{url}/api/{x}?token=t', timeout=5))
    try:
        until(lambda: api('status'))
        with sync_playwright() as pw:
            browser = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS); page = browser.new_page(viewport=dict(width=1300, height=2600)); asked = []
            page.on('request', lambda r: asked.append(r.url)); page.goto(f'{url}/lab/tree/distill.ipynb?token=t'); page.locator('.jp-Notebook .jp-Cell').first.wait_for(timeout=90_000)
            until(lambda: any(s['kernel']['execution_state'] == 'idle' and s['kernel']['connections'] for s in api('sessions')))
            page.get_by_role('menuitem', name='Run', exact=True).click(); page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
            prompts = page.locator('.jp-CodeCell .jp-InputPrompt'); until(lambda: all(re.fullmatch(r'\[\d+\]:', x.strip()) for x in prompts.all_inner_texts()), 240)
            assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').count() == 0
            assert page.locator('.jp-RenderedSVG').count() >= 1 and page.locator('.jp-RenderedHTML table').count() >= 1 and page.get_by_text('mtmt|scheme:IOB2').count() >= 1
            page.screenshot(path=os.environ.get('MTMT_SCREENSHOT', str(tmp_path/'lab.png')), full_page=True)
            assert not [u for u in asked if '127.0.0.1' not in u and not u.startswith(('data:', 'blob:'))]; browser.close()
    finally: lab.terminate(); lab.wait(20)
