"""How `make docs` builds the site: from docs/, the docstrings, conf/ and docs/results, without a network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])

project = "robode"
author = "robode authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "formulas", "docstrings", "generated"]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "_ext", "results/*/*"]
nitpicky = True
suppress_warnings = ["ref.python"]  # a name that several classes have

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_use_rtype = False

html_theme = "furo"
html_title = "robode"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
