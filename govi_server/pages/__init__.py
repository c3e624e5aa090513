"""HTML pages for people: templates, styles, scripts and texts. Independent of HTTP."""
