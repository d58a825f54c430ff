"""Run chapters in fresh kernels and keep their outputs; make README.md from index.ipynb.

usage: run_notebooks.py [--out DIR] [NOTEBOOK ...]
Without names: all chapters, the index, the reference and the experiment. Notebooks in encoders/ need text of their own, and
the benchmark an idle machine: run them by hand. DIR holds the runs of experiments. With finished runs there, experiments are quick; without DIR
they go to a temporary folder."""
import argparse, os, re, subprocess, sys, tempfile
from pathlib import Path

import nbformat, papermill
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
WIDGET = 'application/vnd.jupyter.widget-view+json'
# one thread: sums in another order give other last digits
ENVIRONMENT = dict(TQDM_DISABLE='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1')

def kept(output):
    "Whether an output belongs in the notebook"
    # a widget shows nothing without its kernel, and its id is new each time
    return output.get('name') != 'stderr' and WIDGET not in output.get('data', {})

def execute(path, folder, out_dir):
    "Run a notebook in a fresh kernel and put the outputs into the source, cell by cell"
    source, done = nbformat.read(path, 4), Path(folder)/path.name
    has_parameters = any('parameters' in c.metadata.get('tags', []) for c in source.cells)
    parameters = dict(out_dir=out_dir) if has_parameters else {}
    papermill.execute_notebook(str(path), str(done), parameters, kernel_name='python3', progress_bar=False,
        cwd=str(ROOT))
    outputs = {c.id: c.outputs for c in nbformat.read(done, 4).cells if c.cell_type == 'code'}
    for cell in source.cells:
        if cell.cell_type != 'code': continue
        cell.outputs = [o for o in outputs[cell.id] if kept(o)]
        cell.execution_count = None
    nbformat.write(source, path)

def readme(index=ROOT/'nbs'/'index.ipynb'):
    "README.md's text: the index, with its outputs"
    notebook = nbformat.read(index, 4)
    notebook.cells = [c for c in notebook.cells if '#| hide' not in c.source]
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r'\]\((?=images/|start_here|experiments/|howto/|tutorials/|reference/|encoders/|benchmarks/|\d\d_)', '](nbs/', text)
    return '<!-- made from nbs/index.ipynb by `make notebooks`; edit that -->\n\n'+text.strip()+'\n'

def main():
    os.environ.update(ENVIRONMENT)
    parser = argparse.ArgumentParser()
    parser.add_argument('--out')
    parser.add_argument('notebooks', nargs='*')
    args = parser.parse_args()
    reference = sorted((ROOT/'nbs'/'reference').glob('*.ipynb'))
    chapters = [*sorted((ROOT/'nbs').glob('*.ipynb')), *reference, ROOT/'nbs'/'experiments'/'distill.ipynb']
    with tempfile.TemporaryDirectory() as folder:
        for path in [Path(x).resolve() for x in args.notebooks] or chapters:
            print(path.relative_to(ROOT), flush=True)
            execute(path, folder, args.out or f'{folder}/runs')
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')
    subprocess.run([Path(sys.executable).parent/'nbdev_clean'], cwd=ROOT, check=True)

if __name__ == '__main__': main()
