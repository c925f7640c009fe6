"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

import os

# nothing is sent and nothing is fetched while the documentation is built
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pyannote_av import __version__

project = "pyannote_av"
author = "The pyannote_av developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
# parameters are not links, whatever else has their name
suppress_warnings = ["ref.python"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# names that a module passes on are documented where they are defined
autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    "show-inheritance": True,
    "ignore-module-all": True,
}
autodoc_member_order = "bysource"
autodoc_use_type_comments = False  # there are none, and looking for them is slow
autodoc_typehints = "none"  # numpy docstrings say it, with shapes and units
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Hyper-parameters", "params_style"), "Usage"]

html_theme = "furo"
html_title = f"pyannote_av {version}"
html_static_path = ["_static"]
