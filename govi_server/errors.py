"""Errors that end the program before it serves, each with a one-line text for the operator."""


class ConfigError(Exception):
    """The configuration is unusable. The text is one line that names the setting, its value and what was expected."""


class StartupError(Exception):
    """A service cannot start. The text is one line that names what failed and why."""
