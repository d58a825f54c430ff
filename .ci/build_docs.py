"""Build the site in _docs/.

With Quarto where it is installed. Otherwise offline: nbdev's own processing, a small adapter, and Sphinx
(myst-nb, furo). Both read the navigation from _quarto.yml. The pages ask nothing of another host: formulas
become MathML, charts are SVG."""
import re, shutil, subprocess, sys
from pathlib import Path

import nbformat, yaml

ROOT = Path(__file__).resolve().parent.parent
CALLOUT = re.compile(r':::\s*\{\.callout-(\w+)[^}]*\}\n(.*?)\n:::', re.S)
KEYS = {'cell_type', 'id', 'metadata', 'source', 'outputs', 'execution_count', 'attachments'}
CONF = r'''
from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project, html_title, html_theme, extensions = 'mtmt', 'mtmt', 'furo', ['myst_nb', 'sphinx_copybutton']
nb_execution_mode, source_suffix = 'off', {'.ipynb': 'myst-nb', '.md': 'myst-nb'}
myst_enable_extensions, myst_heading_anchors = ['colon_fence', 'dollarmath', 'attrs_inline', 'deflist'], 3
nb_render_markdown_format = 'myst'
nb_mime_priority_overrides = [('html', 'image/svg+xml', 1)]
suppress_warnings = ['mystnb.unknown_mime_type', 'myst.header', 'misc.highlighting_failure',
    'myst.xref_missing']
html_math_renderer = 'mathml'
exclude_patterns = []

def visit(self, node):
    block = node.tagname == 'math_block'
    formula = convert(node.astext(), display='block' if block else 'inline')
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise SkipNode

def setup(app): app.add_html_math_renderer('mathml', (visit, None), (visit, None))
'''
PROCESS = '''from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
if __name__ == "__main__":
    refresh_quarto_yml()
    proc_nbs(n_workers=0, force=True)
'''

def documentation(cell):
    "What a documentation cell of nbdev printed, as a Markdown cell"
    text = '\n'.join(o.data['text/markdown'] for o in cell.outputs if 'text/markdown' in o.get('data', {}))
    text = re.sub(r'^---\s*\n', '', text.strip())
    text = re.sub(r'^\[source\]\(([^)]*)\)\{[^}]*\}', r'[source](\1)', text, flags=re.M)
    text = re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}', r'\1', text)
    # the name first, then where it is
    text = re.sub(r'^(\[source\]\([^)]*\))\s*\n+(#+ .*)$', r'\2\n\n\1', text, flags=re.M)
    # nbdev links names in comments of signatures too, where a link is text
    text = re.sub(r'```.*?```', lambda code: re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', code[0]), text, flags=re.S)
    return nbformat.v4.new_markdown_cell(text)

def plain(cell):
    "A cell in nbdev's processed (Quarto) dialect as a plain builder wants it, or None to drop it"
    for k in set(cell)-KEYS: del cell[k]
    if cell.cell_type == 'raw': return None
    if cell.cell_type == 'markdown':
        cell.source = CALLOUT.sub(r':::{\1}\n\2\n:::', cell.source)
        return None if cell.source.startswith('<!-- WARNING') else cell
    if re.search(r'^#\|\s*echo:\s*false', cell.source, re.M): return documentation(cell)
    cell.source = re.sub(r'^\s*#\|.*\n?', '', cell.source, flags=re.M)
    cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
    return cell if cell.source.strip() or cell.outputs else None

def page(path, out):
    "Write one processed notebook as a plain one"
    notebook = nbformat.read(path, 4)
    front = {}
    if notebook.cells and notebook.cells[0].cell_type == 'raw':
        front = yaml.safe_load(notebook.cells[0].source.strip().strip('-')) or {}
    cells = [c for c in map(plain, notebook.cells) if c is not None]
    if front.get('title'):
        title = f'# {front["title"]}\n\n*{front.get("description", "")}*'
        cells.insert(0, nbformat.v4.new_markdown_cell(title))
    for cell in cells: cell.metadata = {}
    metadata = dict(kernelspec=notebook.metadata.get('kernelspec', {}), language_info=dict(name='python'))
    new = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.validate(new)
    nbformat.write(new, out)

def sections(contents):
    "Name and pages of each part of the sidebar; pages outside a part come first, under no name"
    loose = [c for c in contents if isinstance(c, str) and c != 'index.ipynb']
    parts = [(c['section'], c['contents']) for c in contents if not isinstance(c, str)]
    return [('', loose), *parts] if loose else parts

def toctrees(contents):
    "The sidebar of _quarto.yml as Sphinx's trees"
    out = []
    for name, pages in sections(contents):
        caption = f':caption: {name}\n' if name else ''
        names = '\n'.join(p.removesuffix('.ipynb') for p in pages)
        out.append(f':::{{toctree}}\n:hidden:\n:maxdepth: 1\n{caption}\n{names}\n:::')
    return '\n\n'.join(out)

def usable(html):
    "A page whose long lines scroll by keyboard, whose captions say what level they are, and whose tables look alike"
    html = html.replace('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">')
    html = html.replace('<table border="1" class="dataframe">', '<table class="dataframe docutils align-default">')
    html = re.sub(r'<div class="((?:math|table)-wrapper[^"]*)">', r'<div class="\1" tabindex="0">', html)
    return re.sub(r'(<div class="highlight"><pre)>', r'\1 tabindex="0">', html)

def main():
    if shutil.which('quarto'):
        subprocess.run([Path(sys.executable).parent/'nbdev_docs'], cwd=ROOT, check=True)
        return
    print('quarto is not on the PATH: building offline with Sphinx', flush=True)
    # nbdev's processed notebooks, in _proc/, from a process of its own: it starts workers
    subprocess.run([sys.executable, '-c', PROCESS], cwd=ROOT, check=True)
    work, built = ROOT/'build'/'docs', ROOT/'build'/'html'
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(built, ignore_errors=True)
    work.mkdir(parents=True)
    navigation = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))
    contents = navigation['website']['sidebar']['contents']
    names = ['index.ipynb', *(p for _, pages in sections(contents) for p in pages)]
    for name in names: page(ROOT/'_proc'/name, work/name)
    index = nbformat.read(work/'index.ipynb', 4)
    index.cells.append(nbformat.v4.new_markdown_cell(toctrees(contents)))
    nbformat.write(index, work/'index.ipynb')
    shutil.copytree(ROOT/'nbs'/'images', work/'images')
    (work/'conf.py').write_text(CONF, encoding='utf-8')
    subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-b', 'html', str(work), str(built)], check=True)
    for path in built.rglob('*.html'): path.write_text(usable(path.read_text(encoding='utf-8')), encoding='utf-8')
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    shutil.move(built, ROOT/'_docs')
    print('site: _docs/index.html')

if __name__ == '__main__': main()
