"""The command ``twistd govi-cache``: its options and its service."""

import gc
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import IService

from govi_server.application import NAME, make_service
from govi_server.errors import ConfigError, StartupError
from govi_server.runtime.options import Options as ProgramOptions
from govi_server.runtime.printable_log import install
from govi_server.runtime.program import open_log_file
from govi_server.runtime.text import printable
from govi_server.runtime.version import version_text
from govi_server.settings_loader import SETTINGS, Setting, load

CONFIG_HELP = "Configuration file (TOML); etc/govi-cache.toml lists all settings."

SOURCE = "modules.kv55.source"
IMPLIED_SOURCES = {
    "modules.kv55.gateway_url": "govi",
    "feed.addresses": "kv78turbo",
    "feed.timetable": "kv78turbo",
    "feed.gtfs": "kv78turbo",
}
"""The source that a setting's option implies without --source."""


def option_help(key: str) -> str:
    """Return the help of a setting's option."""
    setting = SETTINGS[key]
    default = ", ".join(setting.default) if setting.is_array else f"{setting.default}"
    notes = [
        *(["repeatable"] if setting.is_array else []),
        *([f"implies --source {IMPLIED_SOURCES[key]}"] if key in IMPLIED_SOURCES else []),
        *([f"default: {default}"] if default else []),
    ]
    return f"{setting.description} [{'; '.join(notes)}]" if notes else setting.description


def _value(text: str, setting: Setting) -> str | int:
    """Return the value of an option; a text that is no number remains, so that the error quotes it."""
    return int(text) if isinstance(setting.default, int) and re.fullmatch("[0-9]{1,9}", text) else text


def _repeatable(key: str) -> Callable[["Options", str], None]:
    """Return the method of an option that may be repeated."""

    def append(self: "Options", value: str) -> None:
        self.arrays.setdefault(key, []).append(value)

    append.__doc__ = option_help(key)
    return append


class Options(ProgramOptions):
    """The command line, which overrides the configuration file."""

    program = NAME
    synopsis = "[options]"
    longdesc = "Serves the next departures of a stop, GET /kv55/<TimingPointCode>, from memory."
    optParameters = [
        ["config", "c", None, CONFIG_HELP],
        *(
            [setting.option.name, setting.option.letter, None, option_help(key)]
            for key, setting in SETTINGS.items()
            if setting.option is not None and not setting.is_array
        ),
    ]
    opt_listen = opt_l = _repeatable("listen")
    opt_feed = opt_f = _repeatable("feed.addresses")

    def __init__(self) -> None:
        super().__init__()
        self.arrays: dict[str, list[str]] = {}

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(version_text(NAME))
        raise SystemExit

    def settings(self) -> dict[str, Any]:
        """Return the settings of this command line, by their dotted keys."""
        values: dict[str, Any] = {
            key: _value(self[setting.option.name], setting)
            for key, setting in SETTINGS.items()
            if setting.option is not None and self.get(setting.option.name) is not None
        }
        values |= self.arrays
        for key, source in IMPLIED_SOURCES.items():
            if values.get(key):
                values.setdefault(SOURCE, source)
        return values


def error_text(error: Exception) -> str:
    """Return the text of an error for a terminal, with a line for each problem."""
    return "\n".join(f"{NAME}: {printable(line)}" for line in str(error).splitlines())


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the service of the options.

    Raises SystemExit with a line for each problem if the configuration is invalid.
    """
    if reactor is None:
        from twisted.internet import reactor
    install()
    path, settings = options["config"], options.settings()
    absolute_path = os.path.abspath(path) if path is not None else None  # twistd changes its directory
    try:
        config = load(path, settings)
        try:
            service = make_service(
                config, reactor, open_log_file(options.parent), lambda: load(absolute_path, settings)
            )
        except ConfigError as error:  # about a setting without an option
            raise ConfigError(f"{path}: {error}") from None
    except (ConfigError, StartupError) as error:
        raise SystemExit(error_text(error)) from None
    # A collection of all objects, among them 80,000 of modules that are never freed, would take 50 ms.
    gc.collect()
    gc.freeze()
    return service
