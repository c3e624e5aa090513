"""The types of settings: what a configured number may be."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

_URL = re.compile(r"https?://[!-~]+")


_SEGMENT = re.compile(r"[A-Za-z0-9-]+")


GATEWAY_URL = "http://drisacc.transmodel.nl/TMI_Post/KV55/openOV"
"""Where GOVI took questions (docs/protocols.md 1.1)."""


SOURCES = ("demo", "govi", "kv78turbo")


SUBSCRIBER = "openOV"


def is_http_url(text: str) -> bool:
    """Tell whether a text is the address of something that speaks HTTP, its port included."""
    try:
        url = urlsplit(text)
        port = url.port  # a property that raises
    except ValueError:
        return False
    return _URL.fullmatch(text) is not None and bool(url.hostname) and port != 0 and "@" not in url.netloc


Network: TypeAlias = IPv4Network | IPv6Network


def networks(texts: Sequence[str]) -> list[Network]:
    """Read networks such as 192.0.2.0/24. Raises ValueError."""
    return [ip_network(text) for text in texts]


class ModuleSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What answers under one URL segment, and the gateway it answers from."""

    source: str = "demo"
    gateway_url: str = GATEWAY_URL
    subscriber_id: str = SUBSCRIBER
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


FEED = "tcp://pubsub.besteffort.ndovloket.nl:7817"
"""Where everybody may subscribe, with one connection (docs/protocols.md 2.2)."""


Bytes = Annotated[int, Meta(ge=256, le=2**40)]


Seconds = Annotated[float, Meta(gt=0, le=86400)]


class FeedLimitSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the feed may take, and how long its word counts."""

    message: Bytes = 64 << 20
    """Of one message, after gunzip: a night's planning of the largest operator fits."""
    fresh: Seconds = 60.0
    """Age in seconds up to which what a data owner said is fresh: the feed repeats it every half minute."""
    stale: Seconds = 300.0
    """Age in seconds up to which it is shown, and said to be stale."""


Count = Annotated[int, Meta(ge=1, le=10**9)]


class PasstimeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept: what comes beyond it is refused and counted."""

    passes: Count = 4_000_000
    """Of all stops together, about 400 bytes each. The Netherlands have some hundred thousands in an hour or two."""
    stops: Count = 200_000
    """Three times those of the Netherlands."""
    messages: Count = 100_000
    """General messages, each for one stop."""


class PlanningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept: what comes beyond it is refused and counted."""

    planned: Count = 20_000_000
    """Planned passes of all service levels, about 250 bytes each."""
    names: Count = 500_000
    """Rows of each other table: stops, lines, destinations, service levels. The Netherlands have 60,000 stops."""


class SubscriberSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the feed may be silent, and how much of it waits."""

    silence: Seconds = 60.0
    """Seconds without any frame after which the connection is made anew."""
    recovery: Seconds = 60.0
    """Seconds from the first message to a complete picture: the feed repeats all journeys every 25 to 30 s."""
    back_off: Seconds = 30.0
    """The most seconds between two attempts."""
    message: Bytes = 16 << 20
    """Bytes of one message as it comes. libzmq drops the connection for a larger frame, and leaves it so: the
    silence that follows makes a new one. A larger message of smaller frames is left out."""
    queue: Count = 10_000
    """Messages that wait in libzmq; over it, new ones are lost."""


class FeedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The live feed that modules with source kv78turbo answer from."""

    addresses: tuple[str, ...] = (FEED,)
    timetable: str = ""
    limits: FeedLimitSettings = FeedLimitSettings()
    subscriber: SubscriberSettings = SubscriberSettings()
    passtimes: PasstimeSettings = PasstimeSettings()
    planning: PlanningSettings = PlanningSettings()

    def __post_init__(self) -> None:
        if self.limits.stale < self.limits.fresh:
            raise ValueError("limits.stale must not be below limits.fresh: a stale board is the older one")


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The operators' endpoint."""

    listen: str = "tcp:8081:interface=127.0.0.1"
    probe: str = ""


class ManholeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The operators' way in, over SSH."""

    listen: str = ""
    keys: str = ""


class StatisticsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the statistics log goes."""

    file: str = ""
    rotate: Bytes = 100 << 20
    keep: Count = 10


class AccessSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the server one client may have, and all of them together."""

    connections: Count = 10_000
    """At once; the oldest that idles makes room for a new one. About 10 kB of memory each."""
    per_client: Count = 100
    """Connections of one client at once. A browser opens six; a household or an office shares an address."""
    rate: Count = 50
    """Requests of one client a second, in the long run; over it 429. A display asks every 30 seconds. One that asks
    for several stops counts for each."""
    burst: Count = 500
    """Requests of one client that may come at once, before the rate counts: a page with hundreds of stops."""
    unlimited: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks to which the limits of one client do not apply: this machine, for whatever stands in front."""
    proxies: tuple[str, ...] = ()
    """Networks whose Forwarded and X-Forwarded-For are believed, and whose connections are not limited."""

    def __post_init__(self) -> None:
        for name in ("unlimited", "proxies"):
            try:
                networks(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When the breaker opens, and for how long."""

    failures: Count = 10
    """Questions in a row that the source did not take, before it is left alone."""
    pause: Seconds = 5.0
    """Seconds for which it is left alone; then one question is tried."""


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How long and how much the cache keeps."""

    fresh: Seconds = 60.0
    """Age in seconds up to which a board is served without a thought."""
    stale: Seconds = 300.0
    """Age in seconds up to which it is served while a newer one is asked for, and while the source fails."""
    entries: Count = 50_000
    """Boards: all stops of the Netherlands, and then some. The least recently used goes first, by the second."""
    flights: Count = 10_000
    """Questions to the source at a time; over it, who asks for yet another stop is told that the server is busy."""
    bytes: Bytes = 256 << 20
    """Rendered bytes kept beside the boards; the least recently used goes first."""


class GatewaySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway is given."""

    answer: Seconds = 10.0
    """Seconds from the question to the callback, however many clients wait for it."""
    message: Bytes = 1 << 20
    """Bytes of a callback, before and after gunzip. Some hundred times the largest that was seen."""
    remembered: Count = 100_000
    """Questions that are remembered, to tell late and repeated answers from those that nobody asked for."""


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may take of the server. Times are in seconds, sizes in bytes."""

    connection: Seconds = 13.0
    """From the first moment of a request to its whole answer: the promise of the documented server."""
    keep_alive: Seconds = 13.0
    """For a connection between an answer and the next request."""
    drain: Seconds = 13.0
    """For the requests in flight when the server stops: as long as any of them may take."""
    request_line: Bytes = 8192
    """Over it 414. RFC 9112 section 3 asks for 8000 at least."""
    head: Bytes = 16384
    """For request line and header fields together, over it 431. As much as nginx gives with its defaults."""
    body: Bytes = 1 << 20
    """Over it 413. Ten times the largest board."""


class SnapshotSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a snapshot is kept, and how often it is made."""

    file: str = ""
    """"" is none."""
    every: Seconds = 60.0


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration, as etc/govi-cache.toml describes it."""

    listen: tuple[str, ...] = ("tcp:8080",)
    modules: dict[str, ModuleSettings] = msgspec.field(default_factory=dict)
    statistics: StatisticsSettings = StatisticsSettings()
    admin: AdminSettings = AdminSettings()
    manhole: ManholeSettings = ManholeSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    limits: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    cache: CacheSettings = CacheSettings()
    gateway: GatewaySettings = GatewaySettings()
    breaker: BreakerSettings = BreakerSettings()
    feed: FeedSettings = FeedSettings()

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen is empty")
        if not self.modules:
            self.modules["kv55"] = ModuleSettings()
        for name in self.modules:
            if not _SEGMENT.fullmatch(name):
                raise ValueError(f"modules: {name!r} is not a path segment of letters, digits and hyphens")
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
