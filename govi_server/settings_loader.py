"""The configuration from a TOML file and options: one frozen, checked Config, or a one-line error."""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, time
from difflib import get_close_matches
from ipaddress import ip_network
from reprlib import Repr
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from govi_server.errors import ConfigError
from govi_server.settings import GATEWAY_URL, SOURCE, SOURCES, TEXT, Config, Form, ModuleSettings, Option

_MODULE_NAME = re.compile(r"[A-Za-z0-9-]+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Setting(NamedTuple):
    """One setting; of an array, form is that of its elements."""

    default: Any
    description: str
    form: Form
    is_array: bool
    option: Option | None


class Table(NamedTuple):
    """A table of the configuration file: its description, and what it holds, by key."""

    description: str
    settings: dict[str, Setting]
    tables: dict[str, "Table"]


def describe(struct: type[Struct]) -> Table:
    """Return the settings and tables that a Struct of the settings module declares."""
    table = Table(inspect.getdoc(struct) or "", {}, {})
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            table.settings[field.name] = _setting(hint, field.default)
        elif hint == dict[str, ModuleSettings]:
            table.tables[field.name] = Table("", {}, {"kv55": describe(ModuleSettings)})
        else:
            table.tables[field.name] = describe(hint)
    return table


def _setting(hint: Any, default: Any) -> Setting:
    kind, *notes = get_args(hint)
    is_array = get_origin(kind) is tuple
    if is_array:
        notes += get_args(get_args(kind)[0])[1:]
    (description,) = (note for note in notes if isinstance(note, str))
    form = next((note for note in notes if isinstance(note, Form)), TEXT)
    option = next((note for note in notes if isinstance(note, Option)), None)
    return Setting(default, description, form, is_array, option)


def _joined(name: str, key: str) -> str:
    """Return the dotted key of a key in the table of this name."""
    key = key if _BARE_KEY.fullmatch(key) else _shown(key)
    return f"{name}.{key}" if name else key


CONFIGURATION = describe(Config)
MODULE = CONFIGURATION.tables["modules"].tables["kv55"]


def settings_of(table: Table, name: str = "") -> Iterator[tuple[str, Setting]]:
    """Return all settings of a table and of the tables in it, with their dotted keys."""
    for key, setting in table.settings.items():
        yield _joined(name, key), setting
    for key, inner in table.tables.items():
        yield from settings_of(inner, _joined(name, key))


SETTINGS = dict(settings_of(CONFIGURATION))
"""All settings by their dotted keys, those of a module as modules.kv55."""


def load(path: str | None, options: Mapping[str, Any]) -> Config:
    """Return the configuration: the file's values over the defaults, and the options' over both.

    options: values by dotted key, such as modules.kv55.source. Raises ConfigError, whose text names the file and the
    key, or the option. The file is checked first: an invalid value in it is an error even if an option overrides it.
    """
    values: dict[str, Any] = {}
    where = f"{path}: " if path is not None else ""
    if path is not None:
        values = _read(path)
        for key, problem in _invalid_in_table(values, CONFIGURATION, ""):
            raise ConfigError(f"{where}{key}: {problem}")
    for key, value in options.items():
        *tables, name = key.split(".")
        table = values
        for inner in tables:
            table = table.setdefault(inner, {})
        table[name] = value
    for key, problem in _invalid_in_table(values, CONFIGURATION, ""):
        raise ConfigError(f"{_option_name(key)}: {problem}")
    config = msgspec.convert(values, Config)
    for key, problem in _conflicts(config):
        raise ConfigError(f"{_option_name(key) if key in options else f'{where}{key}'}: {problem}")
    return config


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # invalid TOML or UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path}: invalid TOML: {error}") from None


def _option_name(key: str) -> str:
    """Return the option that sets a setting; key may be that of an element."""
    option = SETTINGS[key.partition("[")[0]].option
    assert option is not None
    return f"--{option.name}"


# Problems: pairs of a key and a text

Problems = Iterator[tuple[str, str]]


def _invalid_in_table(values: object, table: Table, name: str) -> Problems:
    if not isinstance(values, Mapping):
        yield name, f"invalid value {_shown(values)} (expected a table)"
        return
    for key, value in values.items():
        path = _joined(name, key)
        if key in table.settings:
            yield from _invalid_values(value, table.settings[key], path)
        elif path == "modules":
            yield from _invalid_modules(value)
        elif key in table.tables:
            yield from _invalid_in_table(value, table.tables[key], path)
        else:
            yield path, _unknown(key, table, name)


def _invalid_modules(modules: object) -> Problems:
    if not isinstance(modules, Mapping):
        yield "modules", f"invalid value {_shown(modules)} (expected a table)"
        return
    for name, values in modules.items():
        if _MODULE_NAME.fullmatch(name):
            yield from _invalid_in_table(values, MODULE, _joined("modules", name))
        else:
            yield "modules", f"invalid name {_shown(name)} (expected letters, digits and hyphens)"


def _invalid_values(value: Any, setting: Setting, path: str) -> Problems:
    """Yield the problem of a setting's value, or of the first wrong element of an array."""
    form = setting.form
    if not setting.is_array:
        if not form.is_valid(value):
            yield path, _invalid(value, form)
    elif not isinstance(value, list):
        meant = f"; did you mean [{_shown(value)}]?" if form.is_valid(value) else ""
        plural = f"{form.noun}es" if form.noun.endswith("s") else f"{form.noun}s"
        yield path, f"invalid value {_shown(value)} (expected an array of {plural}){meant}"
    else:
        for index, element in enumerate(value):
            if not form.is_valid(element):
                yield f"{path}[{index}]", _invalid(element, form)


def _conflicts(config: Config) -> Problems:
    """Yield the settings that are valid alone, but contradict others."""
    callbacks: dict[str, str] = {}
    for name, module in config.modules.items():
        key = f"modules.{name}"
        if module.source != "govi" and module.gateway_url != GATEWAY_URL:
            yield f"{key}.gateway_url", f"not used by source {module.source!r} (expected source 'govi')"
        if module.source == "demo" and not module.callback.startswith("tcp"):
            yield f"{key}.callback", f"invalid endpoint {module.callback!r} (source 'demo' expects a tcp endpoint)"
        other = callbacks.setdefault(module.callback, key) if module.source != "kv78turbo" else key
        if other != key:
            yield f"{key}.callback", f"{module.callback!r} is already the endpoint of {other}.callback"
    if not config.listen:
        yield "listen", "invalid value [] (expected at least one endpoint)"
    if config.manhole.listen and not config.manhole.keys:
        yield "manhole.listen", "requires manhole.keys (--manhole-keys), the file of the public keys that may log in"
    if config.is_live and not config.feed.addresses and not config.feed.timetable:
        yield "feed.addresses", "invalid value [] (expected at least one feed address, or feed.timetable)"
    for key, ages in (("cache", config.cache), ("feed.limits", config.feed.limits)):
        if ages.stale < ages.fresh:
            yield f"{key}.stale", f"invalid value {ages.stale:g} (expected at least {key}.fresh, {ages.fresh:g})"
    answer, connection = config.gateway.answer, config.limits.connection
    if answer >= connection:
        reason = f"expected less than limits.connection, {connection:g}, or clients get a 406 instead of a 504"
        yield "gateway.answer", f"invalid value {answer:g} ({reason})"


# Texts


def _unknown(key: str, table: Table, name: str) -> str:
    """Return the text for an unknown key: the nearest key of its table, that key of others, or all of its table."""
    known = [*table.settings, *table.tables]
    near = [_joined(name, match) for match in get_close_matches(key, known, 1)]
    elsewhere = [path for path in (*SETTINGS, "modules.kv55") if path.rpartition(".")[2] == key]
    if meant := near or elsewhere:
        return f"unknown setting; did you mean {' or '.join(map(repr, meant))}?"
    return f"unknown setting (expected {_alternatives(known)})"


def _alternatives(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _invalid(value: object, form: Form) -> str:
    """Return the text for an invalid value: what was expected, or the valid value that was probably meant."""
    text = f"invalid {form.noun} {_shown(value)}"
    guess = next((guess for guess in _guesses(value, form) if form.is_valid(guess)), None)
    if guess is None or form.noun == "value":
        text += f" (expected {form.expected})"
    return text if guess is None else f"{text}; did you mean {_shown(guess)}?"


def _guesses(value: object, form: Form) -> list[Any]:
    """Return what an invalid value may have been meant to be; not all of it is valid."""
    text = str(value).strip()
    match form.noun:
        case "endpoint":
            return _endpoints(text)
        case "URL" if isinstance(value, str):
            return [f"http://{text.rpartition('://')[2]}"]
        case "feed address" if isinstance(value, str):
            return [f"tcp://{text}"]
        case "network":
            return _networks(text)
        case _:
            return get_close_matches(text.lower(), SOURCES, 1) if form is SOURCE else _numbers(text)


def _endpoints(text: str) -> list[str]:
    """Return the endpoint that a port, an IPv4 address with a port, or a path stands for."""
    if text.startswith("/"):
        return [f"unix:{text}"]
    match = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+)?:)?(\d+)", text, re.ASCII)
    if match is None:
        return []
    host, port = match.groups()
    return [f"tcp:{port}:interface={host}" if host else f"tcp:{port}"]


def _networks(text: str) -> list[str]:
    """Return the network that an address with a prefix length is in: 10.0.0.0/8 for 10.0.0.1/8."""
    try:
        return [str(ip_network(text, strict=False))]
    except ValueError:
        return []


def _numbers(text: str) -> list[float]:
    try:
        number = float(text)
    except ValueError:
        return []
    return [int(number), number] if number.is_integer() else [number]


_repr = Repr()
_repr.maxstring = _repr.maxother = 120


def _shown(value: object) -> str:
    """Return a value as it may stand in TOML, on one line and cut to a length."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return value.isoformat()
    return _repr.repr(value)
