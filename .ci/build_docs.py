"""Build the site in _docs/.

With Quarto where it is installed, else offline: nbdev's own processing, a small adapter and Sphinx (myst-nb, furo). One navigation
for both, read from _quarto.yml. Nothing in the built pages is asked of another host: formulas become MathML, charts are SVG."""
import re, shutil, subprocess, sys
from pathlib import Path

import nbformat, yaml

ROOT = Path(__file__).resolve().parent.parent
KEYS = {'cell_type', 'id', 'metadata', 'source', 'outputs', 'execution_count', 'attachments'}
CONF = r'''
project, html_title, html_theme, extensions = 'mtmt', 'mtmt', 'furo', ['myst_nb']
nb_execution_mode, source_suffix = 'off', {'.ipynb': 'myst-nb', '.md': 'myst-nb'}
myst_enable_extensions, myst_heading_anchors = ['colon_fence', 'dollarmath', 'attrs_inline', 'deflist'], 3
nb_render_markdown_format = 'myst'
nb_mime_priority_overrides = [('html', 'image/svg+xml', 1)]
suppress_warnings = ['mystnb.unknown_mime_type', 'myst.header', 'misc.highlighting_failure', 'myst.xref_missing']
html_math_renderer = 'mathml'
exclude_patterns = []
def visit(self, node):
    from latex2mathml.converter import convert
    block = node.tagname == 'math_block'
    formula = convert(node.astext(), display='block' if block else 'inline')
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    from docutils.nodes import SkipNode
    raise SkipNode
def setup(app): app.add_html_math_renderer('mathml', (visit, None), (visit, None))
'''

def plain(cell):
    "A cell in nbdev's processed (Quarto) dialect as a plain builder wants it, or None to drop it"
    for k in set(cell)-KEYS: del cell[k]
    if cell.cell_type == 'raw' or (cell.cell_type == 'markdown' and cell.source.startswith('<!-- WARNING')): return None
    if cell.cell_type == 'markdown':
        cell.source = re.sub(r':::\s*\{\.callout-(\w+)[^}]*\}\n(.*?)\n:::', r':::{\1}\n\2\n:::', cell.source, flags=re.S); return cell
    if re.search(r'^#\|\s*echo:\s*false', cell.source, re.M):           # a documentation cell: its output is Markdown
        md = '\n'.join(o.data['text/markdown'] for o in cell.outputs if 'text/markdown' in o.get('data', {}))
        md = re.sub(r'^---\s*\n', '', md.strip())
        md = re.sub(r'^\[source\]\(([^)]*)\)\{[^}]*\}', r'[source](\1)', md, flags=re.M)
        md = re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}', r'\1', md)
        # the name first, then where it is
        return nbformat.v4.new_markdown_cell(re.sub(r'^(\[source\]\([^)]*\))\s*\n+(#+ .*)$', r'\2\n\n\1', md, flags=re.M))
    cell.source = re.sub(r'^\s*#\|.*\n?', '', cell.source, flags=re.M)
    cell.outputs = [o for o in cell.outputs if not (o.get('name') == 'stderr')]
    return cell if cell.source.strip() or cell.outputs else None

def page(path, out):
    "One processed notebook as a plain one"
    nb = nbformat.read(path, 4); front = {}
    if nb.cells and nb.cells[0].cell_type == 'raw': front = yaml.safe_load(nb.cells[0].source.strip().strip('-')) or {}
    cells = [c for c in map(plain, nb.cells) if c is not None]
    if front.get('title'): cells.insert(0, nbformat.v4.new_markdown_cell(f'# {front["title"]}\n\n*{front.get("description", "")}*'))
    for c in cells: c.metadata = {}
    new = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=nb.metadata.get('kernelspec', {}),
        language_info=dict(name='python')))
    out.parent.mkdir(parents=True, exist_ok=True); nbformat.validate(new); nbformat.write(new, out)

def toctrees(contents):
    "The sidebar of _quarto.yml as Sphinx's trees"
    loose, parts = [c for c in contents if isinstance(c, str) and c != 'index.ipynb'], []
    for s in ([dict(section='', contents=loose)] if loose else [])+[c for c in contents if not isinstance(c, str)]:
        parts.append(':::{toctree}\n:hidden:\n:maxdepth: 1\n'+(f':caption: {s["section"]}\n' if s['section'] else '')+'\n'
            +'\n'.join(c.removesuffix('.ipynb') for c in s['contents'])+'\n:::')
    return '\n\n'.join(parts)

def process():
    "nbdev's processed notebooks, in _proc/ (a process of its own: it starts workers)"
    code = ('from nbdev.quarto import refresh_quarto_yml\nfrom nbdev.serve import proc_nbs\n'
        'if __name__ == "__main__":\n    refresh_quarto_yml(); proc_nbs(n_workers=0, force=True)\n')
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

def main():
    if shutil.which('quarto'): subprocess.run([Path(sys.executable).parent/'nbdev_docs'], cwd=ROOT, check=True); return
    print('quarto is not on the PATH: building offline with Sphinx', flush=True)
    process(); work = ROOT/'build'/'docs'; shutil.rmtree(work, ignore_errors=True); work.mkdir(parents=True)
    contents = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    for name in [c for s in contents for c in ([s] if isinstance(s, str) else s['contents'])]: page(ROOT/'_proc'/name, work/name)
    index = nbformat.read(work/'index.ipynb', 4)
    index.cells.append(nbformat.v4.new_markdown_cell(toctrees(contents)))
    nbformat.write(index, work/'index.ipynb')
    if (ROOT/'nbs'/'images').is_dir(): shutil.copytree(ROOT/'nbs'/'images', work/'images')
    (work/'conf.py').write_text(CONF); built = ROOT/'build'/'html'; shutil.rmtree(built, ignore_errors=True)
    subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-b', 'html', str(work), str(built)], check=True)
    shutil.rmtree(ROOT/'_docs', ignore_errors=True); shutil.move(built, ROOT/'_docs')
    print('site: _docs/index.html')

if __name__ == '__main__': main()
