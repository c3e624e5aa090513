"""The command ``govi-cache config``, which prints the configuration in force."""

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

import click
import msgspec

from govi_server.command.locations import Locations, locate
from govi_server.command.options import config_option, parse, setting_options
from govi_server.errors import ConfigError
from govi_server.operations.configuration import changed_settings
from govi_server.settings_loader import load, option_name, without_passwords
from govi_server.tap import IMPLIED_SOURCES, SOURCE, error_text


@click.command(params=[config_option(), *setting_options()])
@click.option("--changed", is_flag=True, help="Print only what differs from the defaults.")
def config(changed: bool, **values: Any) -> None:
    """Print the configuration in force as TOML.

    A comment after each value states where it is set: an option, a line of the file, or nowhere (default).
    """
    path, options = parse(values)
    try:
        loaded = load(path, options)
    except ConfigError as error:
        raise SystemExit(error_text(error)) from None
    origins = Origins(path, options, Locations({}) if path is None else locate(path), values)
    keys = changed_settings(loaded) if changed else None
    for line in _lines(msgspec.to_builtins(loaded), origins, keys):
        click.echo(line)


class Origins:
    """Where settings come from. values: the options of the command line, by the names of their parameters."""

    def __init__(
        self, path: str | None, options: Mapping[str, Any], lines: Locations, values: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._options = options
        self._lines = lines
        self._values = values

    def origin(self, key: str) -> str:
        """Return the origin of a setting, "default" if it is not set."""
        if key == SOURCE and key in self._options and self._values["source"] is None:
            implying = next(option for option in IMPLIED_SOURCES if option in self._options)
            return f"implied by {option_name(implying)}"
        if key in self._options:
            return option_name(key)
        return f"{self._path}:{self._lines.lines[key]}" if key in self._lines.lines else "default"


def _lines(table: Mapping[str, Any], origins: Origins, keys: Container[str] | None, name: str = "") -> Iterator[str]:
    """Yield the lines of a table and of those in it. keys: the dotted keys of the settings to print, None for all."""
    prefix = f"{name}." if name else ""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    shown = [key for key in table if key not in inner and (keys is None or f"{prefix}{key}" in keys)]
    if shown and name:
        yield f"\n[{name}]"
    for key in shown:
        value = without_passwords(json.dumps(table[key], ensure_ascii=False))
        yield f"{key} = {value}  # {origins.origin(prefix + key)}"
    for key in inner:
        yield from _lines(inner[key], origins, keys, f"{prefix}{key}")
