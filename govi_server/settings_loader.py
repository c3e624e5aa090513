"""Loads the configuration from a TOML file and options: a checked Config, or a one-line error.

Longer than other modules: half of it finds the words of errors, which depend on the type of the setting.
"""

import inspect
import re
import tomllib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, time
from difflib import get_close_matches
from ipaddress import ip_network
from itertools import combinations
from reprlib import Repr
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from govi_server.errors import ConfigError
from govi_server.settings import (
    GATEWAY_URL,
    LOG_FORMAT,
    LOG_FORMATS,
    PROXY_HEADER,
    PROXY_HEADERS,
    SOURCE,
    SOURCES,
    TEXT,
    Config,
    ModuleSettings,
    Option,
    SettingType,
)
from govi_server.sockets.endpoint_syntax import have_same_address

SOURCE_MEANINGS = "demo: a fictional town, govi: a gateway, or kv78turbo: the live feed"

_MODULE_NAME = re.compile(r"[A-Za-z0-9-]+")
_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]*@")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_INDEX = re.compile(r"\[[0-9]+\]\Z")


class Setting(NamedTuple):
    """A setting. type: for an array, the type of its elements."""

    default: Any
    description: str
    type: SettingType
    is_array: bool
    option: Option | None


class Table(NamedTuple):
    """A table of the configuration file: its description, and its settings and tables by key."""

    description: str
    settings: dict[str, Setting]
    tables: dict[str, "Table"]


def describe(struct: type[Struct]) -> Table:
    """Return the table that a Struct of the settings module declares."""
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
    setting_type = next((note for note in notes if isinstance(note, SettingType)), TEXT)
    option = next((note for note in notes if isinstance(note, Option)), None)
    return Setting(default, description, setting_type, is_array, option)


def joined(name: str, key: str) -> str:
    """Return the dotted key of a key in the table of this name."""
    key = key if _BARE_KEY.fullmatch(key) else shown(key)
    return f"{name}.{key}" if name else key


CONFIGURATION = describe(Config)
MODULE = CONFIGURATION.tables["modules"].tables["kv55"]


def settings_of(table: Table, name: str = "") -> Iterator[tuple[str, Setting]]:
    """Return all settings of a table and of the tables in it, with their dotted keys."""
    for key, setting in table.settings.items():
        yield joined(name, key), setting
    for key, inner in table.tables.items():
        yield from settings_of(inner, joined(name, key))


SETTINGS = dict(settings_of(CONFIGURATION))
"""All settings by their dotted keys, those of a module as modules.kv55."""


class Problem(NamedTuple):
    """A problem of the configuration. name: of the setting or option. key: the dotted key, "" for an option's."""

    name: str
    text: str
    key: str


class Loaded(NamedTuple):
    """The valid settings, with the problems of the others. values: the valid ones that are set, as in TOML."""

    config: Config
    problems: list[Problem]
    values: dict[str, Any]


def load(path: str | None, options: Mapping[str, Any]) -> Config:
    """Return the configuration: options override the file, and the file overrides the defaults.

    options: values by dotted key, such as modules.kv55.source. Raises ConfigError, whose message has a line for each
    problem, which names the file and the key, or the option. The file is checked first: an invalid value in it is an
    error even if an option overrides it.
    """
    loaded = load_valid(path, options)
    lines = [
        f"{path}: {name}: {text}" if key and path is not None else f"{name}: {text}"
        for name, text, key in loaded.problems
    ]
    if lines:
        raise ConfigError("\n".join(lines))
    return loaded.config


def load_valid(path: str | None, options: Mapping[str, Any]) -> Loaded:
    """Return the configuration without its invalid settings, and all its problems, in the order of load().

    Raises ConfigError if the file cannot be read or parsed.
    """
    values: dict[str, Any] = {} if path is None else _read(path)
    problems = [Problem(key, text, key) for key, text in _invalid_in_table(values, CONFIGURATION, "")]
    values = _without(values, problems)
    modules = list(values.get("modules", {}))
    for key, value in options.items():
        *tables, name = key.split(".")
        table = values
        for inner in tables:
            table = table.setdefault(inner, {})
        table[name] = value
    of_options = [Problem(option_name(key), text, key) for key, text in _invalid_in_table(values, CONFIGURATION, "")]
    values = _without(values, of_options)
    problems += [problem._replace(key="") for problem in of_options]
    config = msgspec.convert(values, Config)
    invalid = {setting_key(problem.key) for problem in (*problems, *of_options)}
    for key, text in (*_unused_options(modules, options, config), *_conflicts(config)):
        if setting_key(key) not in invalid:  # otherwise it follows from the first problem
            is_option = setting_key(key) in options
            problems.append(Problem(option_name(key) if is_option else key, text, "" if is_option else key))
    return Loaded(config, problems, values)


def _without(values: dict[str, Any], problems: Iterable[Problem], name: str = "") -> dict[str, Any]:
    """Return the settings of a table without those that have problems."""
    invalid = {setting_key(problem.key) for problem in problems}
    paths = {key: joined(name, key) for key in values}
    return {
        key: _without(value, problems, paths[key]) if isinstance(value, dict) else value
        for key, value in values.items()
        if paths[key] not in invalid
    }


def _read(path: str) -> dict[str, Any]:
    if not path:
        raise ConfigError("--config: invalid value '' (expected a file)")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from None
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ConfigError(f"{path}: invalid TOML: UTF-16 or UTF-32 (expected UTF-8)")
    try:
        return tomllib.loads(data.removeprefix(BOM_UTF8).decode())  # some editors of Windows write the mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: invalid TOML: not UTF-8 (invalid byte at offset {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: invalid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: invalid TOML: too many nested arrays or tables") from None
    except ValueError:  # of int()
        raise ConfigError(f"{path}: invalid TOML: a number has too many digits") from None


def without_passwords(text: str) -> str:
    """Return a text with *** in place of the passwords in its URLs."""
    return _PASSWORD.sub(r"\1***@", text)


def setting_name(key: str) -> str:
    """Return the name of a setting in errors: its dotted key and, if it has one, its option."""
    setting = SETTINGS.get(key)
    return f"{key} (--{setting.option.name})" if setting is not None and setting.option is not None else key


def option_name(key: str) -> str:
    """Return the option of a setting. key: of the setting, or of an element of it."""
    option = SETTINGS[setting_key(key)].option
    assert option is not None
    return f"--{option.name}"


def setting_key(key: str) -> str:
    """Return the key of a setting. key: of the setting, or of an element of it, such as listen[0]."""
    return _INDEX.sub("", key)


# Checks.

Problems = Iterator[tuple[str, str]]
"""Pairs of a key and a message."""


def _invalid_in_table(values: object, table: Table, name: str) -> Problems:
    if not isinstance(values, Mapping):
        yield name, f"invalid value {shown(values)} (expected a table)"
        return
    for key, value in values.items():
        path = joined(name, key)
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
        yield "modules", f"invalid value {shown(modules)} (expected a table)"
        return
    for name, values in modules.items():
        if _MODULE_NAME.fullmatch(name):
            yield from _invalid_in_table(values, MODULE, joined("modules", name))
        else:
            yield joined("modules", name), "invalid name (expected letters, digits and hyphens)"


def _invalid_values(value: Any, setting: Setting, path: str) -> Problems:
    """Yield the problem of a setting's value, or of the first wrong element of an array."""
    setting_type = setting.type
    if not setting.is_array:
        if not setting_type.is_valid(value):
            yield path, _invalid(value, setting_type)
    elif not isinstance(value, list):
        suggestion = f"; did you mean [{shown(value)}]?" if setting_type.is_valid(value) else ""
        noun = setting_type.noun
        plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
        yield path, f"invalid value {shown(value)} (expected an array of {plural}){suggestion}"
    else:
        for index, element in enumerate(value):
            if not setting_type.is_valid(element):
                yield f"{path}[{index}]", _invalid(element, setting_type)


def _unused_options(in_file: Collection[str], options: Mapping[str, Any], config: Config) -> Problems:
    """Yield the options that have no effect, or an unexpected one. in_file: the names of the file's modules."""
    adds_module = in_file and "kv55" not in in_file and "modules.kv55.callback" in options
    if adds_module and "modules.kv55.source" not in options:
        others = _alternatives([joined("modules", name) for name in in_file])
        yield "modules.kv55.callback", f"there is no module kv55, only {others} (expected --source to add it)"
    source = next(iter(config.modules.values())).source
    for key, is_used in (
        ("feed.addresses", config.is_live),
        ("feed.gtfs", config.is_live or not config.feed.gtfs),
        ("feed.timetable", config.is_live or config.is_demo),
    ):
        if source and key in options and not is_used:
            yield key, f"not used by source {source!r} (expected source 'kv78turbo')"
    if "manhole.keys" in options and not config.manhole.listen:
        yield "manhole.keys", "not used without manhole.listen (--manhole)"


def _conflicts(config: Config) -> Problems:
    """Yield the settings that are valid, but conflict with others."""
    for (other, taken), (key, text) in combinations(config.endpoints, 2):
        if have_same_address(taken, text):
            yield key, f"{text!r} has the same address as {other}, {taken!r}"
    others = [module.source for module in config.modules.values() if module.source not in ("", "demo")]
    for name, module in config.modules.items():
        key = f"modules.{name}"
        if module.source == "demo" and others:
            yield f"{key}.source", f"'demo' cannot be combined with the source {others[0]!r} of another module"
        if module.source not in ("", "govi") and module.gateway_url != GATEWAY_URL:
            yield f"{key}.gateway_url", f"not used by source {module.source!r} (expected source 'govi')"
        if module.source == "demo" and not module.callback.startswith("tcp"):
            yield f"{key}.callback", f"invalid endpoint {module.callback!r} (source 'demo' expects a tcp endpoint)"
    if config.share.url and all(module.source == "kv78turbo" for module in config.modules.values()):
        yield "share.url", "not used by source 'kv78turbo' (expected source 'govi')"
    if not config.listen:
        yield "listen", "invalid value [] (expected at least one endpoint)"
    if config.manhole.listen and not config.manhole.keys:
        yield "manhole.listen", "requires manhole.keys (--manhole-keys), the file of the public keys that may log in"
    if config.is_live and not (config.feed.addresses or config.feed.timetable or config.feed.gtfs):
        yield (
            "feed.addresses",
            "invalid value [] (expected a feed address, feed.timetable or feed.gtfs)",
        )
    for key, ages in (("cache", config.cache), ("feed.limits", config.feed.limits)):
        if ages.stale < ages.fresh:
            yield f"{key}.stale", f"invalid value {ages.stale:g} (expected at least {key}.fresh, {ages.fresh:g})"
    answer, connection = config.gateway.answer, config.limits.connection
    if answer >= connection:
        bound = f"it must be below limits.connection ({connection:g}), so that clients get a 504, not a 406"
        yield "gateway.answer", f"{answer:g} is too large: {bound}"
    for name, module in config.modules.items():
        if not module.source:
            where = ", here or with --source" if name == "kv55" else ""
            yield f"modules.{name}.source", f"no source is chosen (expected {SOURCE_MEANINGS}{where})"


# Messages.


def _unknown(key: str, table: Table, name: str) -> str:
    """Return the message for an unknown key, with the nearest key, the same key of other tables, or all keys."""
    known = [*table.settings, *table.tables]
    matches = get_close_matches(key, known, 1) or [match for match in known if match.endswith(f"_{key}")]
    near = [joined(name, match) for match in matches]
    elsewhere = [path for path in (*SETTINGS, "modules.kv55") if path.rpartition(".")[2] == key]
    if suggestions := near or elsewhere:
        return f"unknown setting; did you mean {' or '.join(map(repr, suggestions))}?"
    return f"unknown setting (expected {_alternatives(known)})"


def _alternatives(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _invalid(value: object, setting_type: SettingType) -> str:
    """Return the message for an invalid value: the expected values, or a valid value that was probably intended."""
    text = f"invalid {setting_type.noun}{'' if setting_type.is_secret else f' {shown(value)}'}"
    guess = next((guess for guess in _guesses(value, setting_type) if setting_type.is_valid(guess)), None)
    if guess is None or setting_type.noun == "value":
        text += f" (expected {setting_type.expected})"
    return text if guess is None else f"{text}; did you mean {shown(guess)}?"


WORDS = {SOURCE: SOURCES, PROXY_HEADER: PROXY_HEADERS, LOG_FORMAT: LOG_FORMATS}
"""The types of settings whose values are words."""


def _guesses(value: object, setting_type: SettingType) -> list[Any]:
    """Return the values that may have been intended; they may be invalid, too."""
    text = str(value).strip()
    match setting_type.noun:
        case "endpoint":
            return _endpoints(text)
        case "URL" if isinstance(value, str) and not setting_type.is_secret:
            return [f"http://{text.rpartition('://')[2]}"]
        case "feed address" if isinstance(value, str):
            return [f"tcp://{text.rpartition('://')[2]}"]
        case "network":
            return _networks(text)
        case "host":
            return [text.rpartition("://")[2].partition("/")[0].partition(":")[0]]
        case _:
            if setting_type in WORDS:
                values = WORDS[setting_type]
                lower = {value.lower(): value for value in values}
                return [lower[match] for match in get_close_matches(text.lower(), lower, 1)]
            return _numbers(text)


def _endpoints(text: str) -> list[str]:
    """Return the endpoint for a port, an IPv4 address with a port, or a path."""
    if text.startswith("/"):
        return [f"unix:{text}"]
    match = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+)?:)?(\d+)", text, re.ASCII)
    if match is None:
        return []
    host, port = match.groups()
    return [f"tcp:{port}:interface={host}" if host else f"tcp:{port}"]


def _networks(text: str) -> list[str]:
    """Return the network of an address with a prefix length: 10.0.0.0/8 for 10.0.0.1/8."""
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


def shown(value: object) -> str:
    """Format a value as in TOML, on one line and truncated, without passwords."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return value.isoformat()
    return _repr.repr(without_passwords(value) if isinstance(value, str) else value)
