"""Configuration of the documentation."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "ext"))

project = "sizetransfer"
author = "The sizetransfer authors"
project_copyright = "2026, The sizetransfer authors"
release = version = importlib.metadata.version("sizetransfer")

extensions = [
    "checks",  # docs/ext
    "executed",
    "identities",
    "parts",
    "layers",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
# pydantic's own attributes say nothing about a specification
autodoc_default_options["exclude-members"] = "model_config, model_post_init, model_fields, model_computed_fields"
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes are documented in the class docstring and annotated in the body
napoleon_attr_annotations = False  # the stars of tensor shapes are no markup
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "sizetransfer"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
