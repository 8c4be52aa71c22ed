"""How Sphinx makes the pages: ``make docs``, without a network."""
import re

from docutils import nodes
from docutils.utils.math import latex2mathml

# Readies Chainer, which autodoc imports with the package.
import shared_linear

project = 'shared_linear'
author = 'the authors of shared_linear'
release = version = shared_linear.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
nitpicky = True

html_theme = 'furo'
html_title = f'shared_linear {version}'
html_static_path = ['_static']
html_css_files = ['style.css']
html_show_copyright = False
html_copy_source = False
# MathJax would come from a server, and need scripts; browsers know MathML.
html_math_renderer = 'mathml'

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3

# Types in docstrings are words; those that are names say so themselves.
napoleon_use_param = False
napoleon_use_rtype = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'

# Of other packages, whose pages no build may fetch.
CHAINER = 'https://docs.chainer.org/en/stable/reference/generated/{}.html'
nitpick_ignore_regex = [('py:.*', r'(numpy|cupy|onnx)\..*|callable')]
PYTHON = 'https://docs.python.org/3/library/{}.html#{}'
PYTHON_NAMES = {
    **{name: 'functions' for name in ('bool', 'float', 'int')},
    **{name: 'stdtypes' for name in ('dict', 'list', 'str', 'tuple')},
    **{name: 'exceptions' for name in (
        'ImportError', 'KeyError', 'OSError', 'RuntimeError', 'TypeError',
        'ValueError', 'UserWarning')}}


def link_elsewhere(app, env, node, content):
    """Links names of the package, of Chainer and of Python.

    What a module's docstring names without saying where it is found in the
    package itself; others in their own documentation.
    """
    target = node.get('reftarget', '')
    if node.get('refdomain') == 'py':
        found = env.get_domain('py').resolve_xref(
            env, node['refdoc'], app.builder, node['reftype'],
            f'{shared_linear.__name__}.{target}', node, content)
        if found is not None:
            return found
    if re.fullmatch(r'chainer(\.\w+)+', target):
        uri = CHAINER.format(target)
    elif target in PYTHON_NAMES:
        uri = PYTHON.format(PYTHON_NAMES[target], target)
    else:
        return None
    return nodes.reference('', '', content, internal=False, refuri=uri)


def mathml(node, as_block):
    # The commands of plain TeX that docstrings in Chainer's style use.
    text = re.sub(
        r'\\mathop\{\\rm (\w+)\}', r'\\operatorname{\1}', node.astext())
    text = re.sub(r'\\rm ([^{}]*)', r'\\mathrm{\1}', text)
    # Words, which would be set letter by letter.
    text = re.sub(r'\b(fold|tile|batch)\b', r'\\mathrm{\1}', text)
    return latex2mathml.tex2mathml(text, as_block=as_block)


def inline_math(translator, node):
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def display_math(translator, node):
    translator.body.append(
        f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        'mathml', (inline_math, None), (display_math, None))
    app.connect('missing-reference', link_elsewhere)
