"""The configuration: TOML and options to one frozen, checked Config; an error names the key."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from govi_server.access import Limits as AccessLimits
from govi_server.access import networks
from govi_server.departures.breaker import Limits as BreakerLimits
from govi_server.departures.cache import Limits as CacheLimits
from govi_server.kv55 import messages
from govi_server.kv55.gateway import Limits as GatewayLimits
from govi_server.kv78turbo.feed import Limits as FeedLimits
from govi_server.kv78turbo.passtimes import Limits as PasstimesLimits
from govi_server.kv78turbo.subscriber import FEED
from govi_server.kv78turbo.subscriber import Limits as SubscriberLimits
from govi_server.kv78turbo.timetable import Limits as TimetableLimits
from govi_server.modules.ovapi import PATHS as OVAPI_PATHS
from govi_server.operations.snapshot import Settings as SnapshotSettings
from govi_server.server import Limits as ServerLimits
from govi_server.units import Bytes, Count

_URL = re.compile(r"https?://[!-~]+")
_SEGMENT = re.compile(r"[A-Za-z0-9-]+")


GATEWAY_URL = "http://drisacc.transmodel.nl/TMI_Post/KV55/openOV"
"""Where GOVI took questions (DOMAIN.md 1.1)."""


RESERVED = frozenset({"assets", "board", "docs", "events", "near", "siri", "stops"})
"""Path segments that are the server's own, whatever the source is."""

SOURCES = ("demo", "govi", "kv78turbo")


class ConfigError(Exception):
    """A configuration that cannot be used: the text is one line that names the file and the key."""


class Kv55Module(Struct, frozen=True, forbid_unknown_fields=True):
    """What answers under one URL segment, and the gateway it answers from."""

    source: str = "demo"
    gateway_url: str = GATEWAY_URL
    subscriber_id: str = messages.SUBSCRIBER
    callback: str = "tcp:8082:interface=127.0.0.1"
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    license: str = ""
    """"" is the one of the source."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source is none of {', '.join(SOURCES)}: {self.source!r}")
        if not is_http_url(self.gateway_url):
            raise ValueError(f"gateway_url is not an http address: {self.gateway_url!r}")
        if self.source != "govi" and self.gateway_url != GATEWAY_URL:
            raise ValueError(f"gateway_url goes with source govi, not with {self.source}")
        if self.source == "demo" and not self.callback.startswith("tcp"):
            raise ValueError(f"callback must be a tcp endpoint for source demo: {self.callback!r}")
        try:
            networks(self.allow)
        except ValueError as error:
            raise ValueError(f"allow: {error}") from None


class FeedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The live feed that modules with source kv78turbo answer from."""

    addresses: tuple[str, ...] = (FEED,)
    timetable: str = ""
    limits: FeedLimits = FeedLimits()
    subscriber: SubscriberLimits = SubscriberLimits()
    passtimes: PasstimesLimits = PasstimesLimits()
    planning: TimetableLimits = TimetableLimits()

    def __post_init__(self) -> None:
        if self.limits.stale < self.limits.fresh:
            raise ValueError("limits.stale must not be below limits.fresh: a stale board is the older one")


class Admin(Struct, frozen=True, forbid_unknown_fields=True):
    """The operators' endpoint."""

    listen: str = "tcp:8081:interface=127.0.0.1"
    probe: str = ""

    def __post_init__(self) -> None:
        if self.probe and not messages.is_timing_point_code(self.probe):
            raise ValueError(f"probe is not a TimingPointCode: {self.probe!r}")


class Manhole(Struct, frozen=True, forbid_unknown_fields=True):
    """The operators' way in, over SSH."""

    listen: str = ""
    keys: str = ""


class Statistics(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the statistics log goes."""

    file: str = ""
    rotate: Bytes = 100 << 20
    keep: Count = 10


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration, as etc/govi-cache.toml describes it."""

    listen: tuple[str, ...] = ("tcp:8080",)
    modules: dict[str, Kv55Module] = msgspec.field(default_factory=dict)
    statistics: Statistics = Statistics()
    admin: Admin = Admin()
    manhole: Manhole = Manhole()
    snapshot: SnapshotSettings = SnapshotSettings()
    limits: ServerLimits = ServerLimits()
    access: AccessLimits = AccessLimits()
    cache: CacheLimits = CacheLimits()
    gateway: GatewayLimits = GatewayLimits()
    breaker: BreakerLimits = BreakerLimits()
    feed: FeedSettings = FeedSettings()

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen is empty")
        if not self.modules:
            self.modules["kv55"] = Kv55Module()
        for name in self.modules:
            if not _SEGMENT.fullmatch(name):
                raise ValueError(f"modules: {name!r} is not a path segment of letters, digits and hyphens")
            if name in RESERVED or (name in OVAPI_PATHS and (self.is_live or self.is_demo)):
                raise ValueError(f"modules: {name!r} is a path that is answered already")
        if self.is_live and not self.feed.addresses and not self.feed.timetable:
            raise ValueError("feed.addresses is empty, and there is no feed.timetable either")
        callbacks: dict[str, str] = {}
        for name, module in self.modules.items():
            if module.source == "kv78turbo":
                continue
            other = callbacks.setdefault(module.callback, name)
            if other != name:
                raise ValueError(f"modules.{name}.callback: {module.callback} is the one of modules.{other} already")
        if self.gateway.answer >= self.limits.connection:
            raise ValueError(
                f"gateway.answer ({self.gateway.answer:g} s) must be below limits.connection "
                f"({self.limits.connection:g} s), or clients get a 406 where a 504 is due"
            )
        if self.cache.stale < self.cache.fresh:
            raise ValueError("cache.stale must not be below cache.fresh: a stale board is the older one")

    @property
    def is_demo(self) -> bool:
        """Whether the town is simulated, its live feed among it."""
        return not self.is_live and any(module.source == "demo" for module in self.modules.values())

    @property
    def is_live(self) -> bool:
        """Whether anything is answered from the live feed."""
        return any(module.source == "kv78turbo" for module in self.modules.values())


def is_http_url(text: str) -> bool:
    """Tell whether a text is the address of something that speaks HTTP, its port included."""
    try:
        url = urlsplit(text)
        port = url.port  # a property that raises
    except ValueError:
        return False
    return _URL.fullmatch(text) is not None and bool(url.hostname) and port != 0 and "@" not in url.netloc


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
        msgspec.convert(module, Kv55Module)
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
