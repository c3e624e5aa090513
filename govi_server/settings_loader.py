"""The configuration: TOML and options to one frozen, checked Config; an error names the key."""

import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from govi_server.errors import ConfigError
from govi_server.settings import Config, ModuleSettings


def load(path: str | None, options: Mapping[str, Any]) -> Config:
    """Read the configuration: the file's keys over the defaults, and the options, of the same shape, over both.

    Raises ConfigError.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            with open(path, "rb") as file:
                settings = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
        _convert(path, settings)  # so that what the file has wrong is said of the file
    return _convert("options", _merged(settings, options))


def _convert(where: str, settings: Mapping[str, Any]) -> Config:
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        text, _, key = str(error).replace("\n", "\\n").partition(" - at `$")
        key = key.rstrip("`").lstrip(".")
        if key.startswith("modules[...]"):  # msgspec does not say which: the first that is wrong by itself
            key = key.replace("[...]", f".{_first_wrong(settings['modules'])}", 1)
        raise ConfigError(f"{where}: {key}: {text}" if key else f"{where}: {text}") from None


def _first_wrong(modules: Mapping[str, Any]) -> str:
    return next(name for name, module in modules.items() if not _is_module(module))


def _is_module(module: object) -> bool:
    try:
        msgspec.convert(module, ModuleSettings)
    except msgspec.ValidationError:
        return False
    return True


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others, table by table."""
    merged = dict(under)
    for key, value in over.items():
        if isinstance(value, Mapping):
            value = _merged(merged.get(key, {}), value)
        merged[key] = value
    return merged
