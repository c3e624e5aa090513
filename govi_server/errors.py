"""Errors that end the program at startup, each with a one-line text for the operator."""


class ConfigError(Exception):
    """The configuration is invalid. The text is one line: the setting, its value and the expected value."""


class StartupError(Exception):
    """A service cannot start. The text is one line: what failed, and why."""
