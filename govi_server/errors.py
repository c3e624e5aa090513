"""Errors that stop the program at startup, each with a one-line message for the operator."""


class ConfigError(Exception):
    """The configuration is invalid. The message names the setting, its value and the expected ones."""


class StartupError(Exception):
    """A service cannot start. The message names the service and the reason."""
