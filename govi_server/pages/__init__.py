"""HTML pages: templates, styles, scripts and texts, independent of HTTP."""
