"""How the documentation is built."""

from regcache._version import __version__

version = release = __version__
project = "regcache"
copyright = "2026, The regcache authors"  # noqa: A001
extensions = ["myst_parser"]
html_theme = "alabaster"
# The table of clients is part of the page of registries.
exclude_patterns = ["_build", "registries/matrix.md"]
