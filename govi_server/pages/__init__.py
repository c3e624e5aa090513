"""Pages for people: templates, styles, scripts and texts. Knows nothing of HTTP."""
