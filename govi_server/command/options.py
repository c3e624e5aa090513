"""The options of ``twistd govi-cache``, for the commands that accept them as well."""

from collections.abc import Iterator
from typing import Any

import click

from govi_server.command.completion import complete_file, complete_source
from govi_server.settings_loader import SETTINGS
from govi_server.tap import CONFIG_HELP, Options, option_help


def config_option() -> click.Option:
    """Return the option of the configuration file."""
    return click.Option(["--config", "-c"], metavar="FILE", shell_complete=complete_file, help=CONFIG_HELP)


def setting_options() -> Iterator[click.Option]:
    """Yield the options of settings. Values are not checked: the errors of the configuration are more specific."""
    for key, setting in SETTINGS.items():
        if setting.option is not None:
            name, letter = setting.option
            yield click.Option(
                [f"--{name}", *([f"-{letter}"] if letter is not None else [])],
                help=option_help(key),
                metavar="TEXT",
                multiple=setting.is_array,
                shell_complete=complete_source if name == "source" else None,
            )


def arguments(values: dict[str, Any]) -> list[str]:
    """Return the command line of options, by the names of their parameters."""
    return [
        f"--{name.replace('_', '-')}={text}"
        for name, value in values.items()
        for text in (value if isinstance(value, tuple) else () if value is None else (value,))
    ]


def parse(values: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the path of the configuration file, and the settings of options by their dotted keys."""
    options = Options()
    options.parseOptions(arguments(values))
    return options["config"], options.settings()
