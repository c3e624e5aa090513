"""The documentation site: make docs. Sources are the Markdown files of the repository, as they are."""

from govi_server.runtime.version import VERSION

project = "govi-cache"
release = version = VERSION
html_title = f"govi-cache {VERSION}"

# The source directory is the repository, so that links from docs/ to other directories are links of the site, or
# downloads.
extensions = ["myst_parser"]
include_patterns = ["docs/**", "bench/results.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
root_doc = "docs/index"
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_extra_path = ["site"]
