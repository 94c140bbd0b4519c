"""How the documentation is built."""

import sys
from pathlib import Path

from regcache._version import __version__

sys.path.insert(0, str(Path(__file__).parent))

version = release = __version__
project = "regcache"
copyright = "2026, The regcache authors"  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.zopeext.autointerface", "from_code"]
html_theme = "alabaster"
# The table of clients is part of the page of registries.
exclude_patterns = ["_build", "registries/matrix.md"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
# What is mentioned in a docstring and is not public has no place to link to.
nitpick_ignore_regex = [("py:.*", ".*")]
