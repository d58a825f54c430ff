"""Run chapters in fresh kernels and keep their outputs; make README.md from index.ipynb.

usage: run_notebooks.py [--out DIR] [NOTEBOOK ...]
Without names: all chapters, the index and the experiment; encoders/ needs its text and is run by hand.
DIR holds the runs of experiments: one with finished runs makes them quick; without it they go to a temporary folder."""
import argparse, os, re, subprocess, sys, tempfile
from pathlib import Path

import nbformat, papermill
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent

def execute(path, folder, out_dir):
    "Run a notebook in a fresh kernel and put the outputs into the source, cell by cell"
    source = nbformat.read(path, 4); done = Path(folder)/path.name
    parameters = dict(out_dir=out_dir) if any('parameters' in c.metadata.get('tags', []) for c in source.cells) else {}
    papermill.execute_notebook(str(path), str(done), parameters, kernel_name='python3', progress_bar=False, cwd=str(ROOT))
    outputs = {c.id: c.outputs for c in nbformat.read(done, 4).cells if c.cell_type == 'code'}
    for c in source.cells:
        # a widget shows nothing without its kernel, and its id is new each time
        if c.cell_type == 'code':
            c.outputs = [o for o in outputs[c.id] if o.get('name') != 'stderr'
                and 'application/vnd.jupyter.widget-view+json' not in o.get('data', {})]
            c.execution_count = None
    nbformat.write(source, path)

def readme(index=ROOT/'nbs'/'index.ipynb'):
    "README.md's text: the index, with what it prints"
    nb = nbformat.read(index, 4); nb.cells = [c for c in nb.cells if '#| hide' not in c.source]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return '<!-- made from nbs/index.ipynb by `make notebooks`; edit that -->\n\n'+re.sub(r'\]\((?=images/|experiments/|tutorials/|\d\d_)',
        '](nbs/', text).strip()+'\n'

if __name__ == '__main__':
    # one thread: sums in another order give other last digits
    os.environ |= dict(TQDM_DISABLE='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1')
    p = argparse.ArgumentParser(); p.add_argument('--out'); p.add_argument('notebooks', nargs='*'); a = p.parse_args()
    named = [Path(x).resolve() for x in a.notebooks] or [*sorted((ROOT/'nbs').glob('*.ipynb')), ROOT/'nbs'/'experiments'/'distill.ipynb']
    with tempfile.TemporaryDirectory() as d:
        for p in named: print(p.relative_to(ROOT), flush=True); execute(p, d, a.out or f'{d}/runs')
    (ROOT/'README.md').write_text(readme())
    subprocess.run([Path(sys.executable).parent/'nbdev_clean'], cwd=ROOT, check=True)
