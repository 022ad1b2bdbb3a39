"""The documentation as a site: `make docs` builds it into target/site, with every warning an error."""

import mycelium

project = "Mycelium bridge"
author = "the Mycelium bridge team"
release = version = mycelium.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Links to files beside docs/ lead into the repository, not into the site; a test of the scenarios follows all links. The byte
# tables are marked as hex, for a test, which no highlighter knows.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
html_theme = "furo"
html_title = project

# Google-style docstrings, types from the annotations; what a class inherits is shown where it is used.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
myst_heading_anchors = 3
