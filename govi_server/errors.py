"""Errors that end the program before it serves, each with a one-line text for the operator."""


class ConfigError(Exception):
    """A configuration that cannot be used: the text is one line that names the file and the key."""


class StartupError(Exception):
    """A part of the program cannot start; the text is the one line that an operator gets to see."""
