"""Sphinx configuration; builds offline."""

import os
import re

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl
import torch

import ude

mpl.use("agg")
torch.set_num_threads(1)

project = "ude"
author = "the ude maintainers"
copyright = "2026, the ude maintainers"
release = ude.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
exclude_patterns = [
    "_build",
    "gallery/*.ipynb",
    "gallery/*.py",
    "sg_execution_times.rst",
    "gallery/sg_execution_times.rst",
]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "download_all_examples": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "plot_gallery": "True",
    "capture_repr": (),
}

default_role = "code"
html_theme = "furo"
html_title = "ude"


def mathematics(app, what, name, obj, options, lines):
    """Docstrings write `$x$` and `$$x$$`, as Markdown does; reStructuredText has a role and a directive."""
    text = "\n".join(lines)

    def display(match):
        body = " ".join(match.group(2).split())
        return f"\n\n{match.group(1)}.. math:: {body}\n\n{match.group(1)}"

    text = re.sub(r"(?m)^([ ]*)\$\$(.+?)\$\$", display, text, flags=re.DOTALL)
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: ":math:`" + " ".join(m.group(1).split()) + "`", text, flags=re.DOTALL)
    text = re.sub(r"(?<!\\)\$([^$]+?)\$", lambda m: ":math:`" + " ".join(m.group(1).split()) + "`", text)
    lines[:] = text.split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", mathematics, priority=100)
