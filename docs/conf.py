"""How the documentation is built: ``make docs``.

Nothing is fetched while it is built, and the pages load nothing from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / '_ext'), str(HERE.parent)]

from shivacmb import __version__  # noqa: E402

project = 'shivacmb'
author = 'the shivacmb developers'
copyright = f'2026, {author}'  # noqa: A001
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'from_code',
    'mathml',
]
myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3
exclude_patterns = ['_build', 'generated/parts', 'evaluation/*/table3.md']
highlight_language = 'none'
# quotes in texts of the commands are typed as they stand
smartquotes = False

# short names of types in docstrings (Scan, Lesion, path) mean several things: then no link
suppress_warnings = ['ref.python']

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
# installed by extras only; nothing of theirs is needed to read the docstrings
autodoc_mock_imports = ['tensorflow', 'tf_keras', 'keras', 'torch', 'jax']
napoleon_google_docstring = False
napoleon_custom_sections = [('Inputs', 'params_style'), ('Outputs', 'params_style')]
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'shivacmb {release}'
html_static_path = ['_static']
html_css_files = ['wide-tables.css']
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ['_extra'] if (HERE / '_extra').is_dir() else []

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False
