"""All settings as data: key, default, unit, valid values and one sentence of documentation.

etc/govi-cache.toml and docs/configuration.md (`make configuration`), the options of ``twistd govi-cache --help`` and
the messages about invalid values are generated from it. Rules that need the domain are in application.

Longer than 350 lines, the usual maximum, so that all settings are in one place.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

FEED_ADDRESS = "tcp://pubsub.besteffort.ndovloket.nl:7817"
"""The public KV78turbo feed, which permits one connection per subscriber (docs/protocols.md, section 2.2)."""
GTFS_ADDRESS = "https://gtfs.ovapi.nl/govi/"
"""The public index of GTFS files of KV7 (docs/protocols.md, section 6)."""
GATEWAY_URL = "http://drisacc.transmodel.nl/TMI_Post/KV55/openOV"
"""The GOVI gateway (docs/protocols.md, section 1.1)."""
SUBSCRIBER_ID = "openOV"
SOURCES = ("demo", "govi", "kv78turbo")
CONFIG_VERSION = 2
"""The version of the configuration's format; files of 0.1.0, version 1, are valid as well."""
LOG_FORMATS = ("auto", "text", "json", "journal")
PROXY_HEADERS = ("X-Forwarded-For", "Forwarded", "")

Network: TypeAlias = IPv4Network | IPv6Network


def parse_networks(texts: Sequence[str]) -> list[Network]:
    """Parse networks such as 192.0.2.0/24; mapped IPv4 (RFC 4291) becomes IPv4, as of clients. Raises ValueError."""
    networks: list[Network] = []
    for network in map(ip_network, texts):
        mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
        networks.append(
            IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network
        )
    return networks


def is_http_url(text: str) -> bool:
    """Return whether a text is an http or https URL with a host, a valid port and no user name."""
    try:
        url = urlsplit(text)
        port = url.port  # a property that raises
    except ValueError:
        return False
    is_http = re.fullmatch(r"https?://[!-~]+", text) is not None
    return is_http and bool(url.hostname) and port != 0 and "@" not in url.netloc


def _is_network(text: str) -> bool:
    try:
        return bool(ip_network(text))
    except ValueError:
        return False


class SettingType(NamedTuple):
    """The type of a setting: its noun in messages, the expected values, the check of a TOML value, and the unit."""

    noun: str
    expected: str
    is_valid: Callable[[Any], bool]
    unit: str = ""
    is_secret: bool = False
    """Whether a value may contain a password, and is not shown."""


class Option(NamedTuple):
    """The option of the command line that sets a setting: its long name and, if any, its letter."""

    name: str
    letter: str | None = None


def _whole_number(minimum: int, maximum: int, unit: str = "") -> SettingType:
    expected = f"a whole number{unit and f' of {unit}'} from {minimum} to {maximum}"
    return SettingType("value", expected, lambda value: type(value) is int and minimum <= value <= maximum, unit)


def _string(noun: str, example: str, is_valid: Callable[[str], object]) -> SettingType:
    expected = f"a string such as {example!r}"
    return SettingType(noun, expected, lambda value: isinstance(value, str) and bool(is_valid(value)))


TEXT = SettingType(
    "value",
    "a string without control characters",
    lambda value: isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value) is None,
)
SOURCE = SettingType("value", "demo, govi or kv78turbo", SOURCES.__contains__)
ENDPOINT = _string("endpoint", "tcp:8080", re.compile(r"[a-z][a-z0-9]*:.+").fullmatch)
OPTIONAL_ENDPOINT = ENDPOINT._replace(is_valid=lambda value: value == "" or ENDPOINT.is_valid(value))
URL = _string("URL", "http://localhost:8083/", is_http_url)
OPTIONAL_URL = URL._replace(is_valid=lambda value: value == "" or URL.is_valid(value))
FRAME_ANCESTOR = _string(
    "site",
    "https://www.example.org",
    re.compile(r"\*|https?:|(?:https?://)?(?:\*\.)?[A-Za-z0-9.-]+(?::(?:[0-9]+|\*))?").fullmatch,
)
NETWORK = _string("network", "192.0.2.0/24", _is_network)
HOST = _string("host", "status.example.org", re.compile(r"[A-Za-z0-9._-]+").fullmatch)
PROXY_HEADER = SettingType(
    "value", f"{', '.join(map(repr, PROXY_HEADERS[:-1]))} or {PROXY_HEADERS[-1]!r}", PROXY_HEADERS.__contains__
)
GTFS = SettingType(
    "value",
    "an address such as 'https://gtfs.example.org/govi/', a path, or '' for none",
    lambda value: TEXT.is_valid(value) and ("://" not in value or is_http_url(value)),
)
CONTACT = _string("contact", "mailto:ops@example.org", re.compile(r"[!-'*-\[\]-~]{0,200}").fullmatch)
ENGINE = _string("URL", "redis://host:6379/0", re.compile(r"(?:(?:redis|valkey)s?|unix)://.+|").fullmatch)._replace(
    is_secret=True
)
NODE = _string(
    "address", "10.0.0.12:8082", re.compile(r"(?:[0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):[1-9][0-9]{0,4}").fullmatch
)
PREFIX = _string("prefix", "govi-cache", re.compile(r"[!-~]{1,100}").fullmatch)
FEED = _string("feed address", "tcp://localhost:7817", re.compile(r"[a-z]+://.{1,300}").fullmatch)

LOG_FORMAT = SettingType("value", "auto, text, json or journal", LOG_FORMATS.__contains__)
LOG_LEVEL = _string(
    "log level", "govi_server.kv55=debug", re.compile(r"[A-Za-z0-9_.]*=(?:debug|info|warn|error|critical)").fullmatch
)

_SECONDS = "a number of seconds above 0, at most 86400"
Seconds = Annotated[
    float, SettingType("value", _SECONDS, lambda value: type(value) in (int, float) and 0 < value <= 86400, "seconds")
]
Bytes = Annotated[int, _whole_number(256, 2**40, "bytes")]
Count = Annotated[int, _whole_number(1, 10**9)]
Rate = Annotated[int, _whole_number(1, 10**9, "requests per second")]
Networks = tuple[Annotated[str, NETWORK], ...]


class ModuleSettings(Struct, frozen=True):
    """The module that serves GET /kv55/<TimingPointCode>.

    A table under another name is a module of that name, with its own gateway, callback endpoint and cache:
    [modules.arriva] serves GET /arriva/<TimingPointCode>.
    """

    source: Annotated[
        str,
        SOURCE,
        "Source of departures, which must be chosen: demo (a fictional town, simulated inside the process), govi "
        "(the gateway at gateway_url) or kv78turbo (the live feed of [feed]). demo and kv78turbo also serve OVapi's "
        "paths, /places, /near and /siri.",
        Option("source", "s"),
    ] = ""
    gateway_url: Annotated[
        str,
        URL,
        "URL of the GOVI gateway that receives the requests (DRIS_55_REQ); source govi only. The default is GOVI's "
        "own, for its subscribers.",
        Option("gateway-url", "g"),
    ] = GATEWAY_URL
    subscriber_id: Annotated[str, "SubscriberID of this server at the gateway."] = SUBSCRIBER_ID
    callback: Annotated[
        str,
        ENDPOINT,
        "Endpoint that receives the gateway's responses (DRIS_55), under any path. The gateway knows its address "
        "from the subscription. The default is only reachable from this machine.",
        Option("callback"),
    ] = "tcp:8082:interface=127.0.0.1"
    allow: Annotated[Networks, "Networks that may send callbacks; peers on a unix socket always may."] = (
        "127.0.0.0/8",
        "::1/128",
    )
    nodes: Annotated[
        tuple[Annotated[str, NODE], ...],
        "Addresses of the callback endpoints of nodes that share boards, which may include this one. Nodes find each "
        "other through the engine of [share]; those listed here get each other's callbacks also if one of them was "
        "started without it.",
    ] = ()
    license: Annotated[
        str,
        "URL of the licence in documents, if the gateway's response has none; empty: the licence of the source "
        "(GOVI's, or CC0 for the live feed).",
    ] = ""


class StatisticsSettings(Struct, frozen=True):
    """The statistics log: one JSON line for each closed connection."""

    file: Annotated[
        str, "File of the statistics log, in an existing directory; empty: no log.", Option("statistics")
    ] = ""
    rotate: Annotated[Bytes, "Size at which the log is renamed to file.1 and a new one is started."] = 100 << 20
    keep: Annotated[Count, "Number of renamed logs; the oldest is deleted."] = 10


class PagesSettings(Struct, frozen=True):
    """The pages for people."""

    address: Annotated[
        str,
        OPTIONAL_URL,
        "Address of this server for its clients, such as https://departures.example.org/, in the links and QR codes "
        "of /make and the examples of /docs; empty: that of the request, which behind a proxy or workers only "
        "browsers with scripts know.",
    ] = ""
    embed: Annotated[
        tuple[Annotated[str, FRAME_ANCESTOR], ...],
        "Sites that may show boards in a frame (frame-ancestors of their Content-Security-Policy), such as "
        "https://www.example.org; [] for none but this server.",
    ] = ("*",)


class AdminSettings(Struct, frozen=True):
    """The operators' endpoint, never public: /status, /status.json, /metrics, /health and /ready."""

    listen: Annotated[
        str, OPTIONAL_ENDPOINT, "Endpoint for operators, never public; empty: disabled.", Option("admin")
    ] = "tcp:8081:interface=127.0.0.1"
    hosts: Annotated[
        tuple[Annotated[str, HOST], ...],
        "Names in URLs of this endpoint besides IP addresses and localhost, such as status.example.org; requests for "
        "other hosts get 421, since DNS rebinding would let any web page read the status. Also for callback "
        "endpoints, if the peer is on loopback.",
    ] = ()
    probe: Annotated[
        str,
        "TimingPointCode that /ready requests from each gateway, at most every 5 s; empty: the stop whose board "
        "clients received last.",
    ] = ""


class ManholeSettings(Struct, frozen=True):
    """A Python prompt inside the server, over SSH, for operators.

    It needs Twisted's SSH server: pip install 'twisted[conch]'.
    """

    listen: Annotated[
        str,
        OPTIONAL_ENDPOINT,
        "Endpoint of the Python prompt over SSH, such as tcp:2222:interface=127.0.0.1; empty: disabled.",
        Option("manhole"),
    ] = ""
    keys: Annotated[
        str,
        "File of the public keys that may log in, one per line, as in authorized_keys but without options. The "
        "server's own key is created at the first start, in a file of the same name with the suffix .host.",
        Option("manhole-keys"),
    ] = ""


class LogSettings(Struct, frozen=True):
    """The log of the program."""

    format: Annotated[
        str,
        LOG_FORMAT,
        "Form of the log: text, json (one object per line), journal (lines with priorities for journald), or auto: "
        "journal if stdout is the journal, else text.",
        Option("log-format"),
    ] = "auto"
    levels: Annotated[
        tuple[Annotated[str, LOG_LEVEL], ...],
        "Lowest levels that are written, by namespace, such as govi_server.kv55=debug; without a namespace, =warn, "
        "of all others. The default is info.",
    ] = ()


class SnapshotSettings(Struct, frozen=True):
    """Snapshots of the boards in memory, which the next start restores."""

    file: Annotated[str, "File of the snapshot, in an existing directory; empty: none.", Option("snapshot")] = ""
    every: Annotated[Seconds, "Time between snapshots; another one is written at a clean shutdown."] = 60.0


class ServerSettings(Struct, frozen=True):
    """Limits of one request."""

    connection: Annotated[
        Seconds, 'Deadline from the start of a request to the end of its response; then "406 Gateway timeout".'
    ] = 13.0
    keep_alive: Annotated[
        Seconds, "Idle time between a response and the next request, after which the connection is closed."
    ] = 13.0
    drain: Annotated[Seconds, "Time for requests in flight to finish when the server is stopped."] = 13.0
    request_line: Annotated[
        Bytes, "Maximum length of the request line, then 414; RFC 9112, section 3 recommends at least 8000."
    ] = 16384
    head: Annotated[Bytes, "Maximum length of request line and header section together, then 431."] = 24576
    body: Annotated[Bytes, "Maximum length of a request body, then 413; ten times the largest board."] = 1 << 20
    unfinished: Annotated[
        Bytes,
        "Maximum bytes of unfinished requests of all connections together, callbacks included; then the oldest one "
        "that holds more than an equal share gets 503. Enough for 10,000 requests of 6 kB each.",
    ] = 64 << 20


class AccessSettings(Struct, frozen=True):
    """Limits of each client, an IPv4 address or the /64 of an IPv6 address, and of all clients together."""

    connections: Annotated[
        Count,
        "Maximum open connections of all clients, about 4 kB each; the longest idle one is closed to make room. "
        "Lowered to what the system's limit of open files permits.",
    ] = 10_000
    per_client: Annotated[
        Count,
        "Maximum open connections of one client; further connections get 429 and are closed. A browser opens six.",
    ] = 100
    rate: Annotated[
        Rate,
        "Maximum sustained rate of one client, then 429; a request counts for its work: for each stop, or 20 "
        "passing times.",
    ] = 50
    burst: Annotated[
        Count, "Requests of one client that may arrive together before the rate applies; the most that one costs."
    ] = 500
    unlimited: Annotated[Networks, "Networks that are exempt from the limits of one client."] = (
        "127.0.0.0/8",
        "::1/128",
    )
    proxies: Annotated[
        Networks,
        "Networks of trusted proxies: the header field in access.header names the client, and their connections are "
        "not limited. From other peers the field is ignored.",
    ] = ()
    header: Annotated[
        str,
        PROXY_HEADER,
        "The header field that the proxies set: X-Forwarded-For, Forwarded (RFC 7239), or empty for none. No other "
        "is read: proxies pass on fields that they do not set, with what clients wrote in them.",
    ] = "X-Forwarded-For"


class CacheSettings(Struct, frozen=True):
    """The cache of boards of each gateway."""

    fresh: Annotated[Seconds, "Age up to which a board is served without a gateway request."] = 60.0
    stale: Annotated[Seconds, "Age up to which a board is served while it is refreshed or the gateway fails."] = 300.0
    entries: Annotated[
        Count, "Maximum number of boards, more than the Netherlands has stops; the least recently used is evicted."
    ] = 50_000
    bytes: Annotated[
        Bytes, "Maximum size of boards and their rendered documents; the least recently used board is evicted first."
    ] = 256 << 20
    flights: Annotated[Count, "Maximum gateway requests in flight, then 503."] = 10_000


class GatewaySettings(Struct, frozen=True):
    """Limits of the requests to a gateway."""

    answer: Annotated[
        Seconds,
        "Deadline from a request to its callback, however many clients wait, then 504; below limits.connection.",
    ] = 10.0
    message: Annotated[Bytes, "Maximum size of a callback, before and after gunzip."] = 1 << 20
    remembered: Annotated[
        Count,
        "Maximum requests stored for five minutes, to distinguish late and repeated callbacks from unsolicited ones.",
    ] = 100_000


class BreakerSettings(Struct, frozen=True):
    """The circuit breaker of each gateway."""

    failures: Annotated[Count, "Consecutive errors after which the breaker opens."] = 10
    pause: Annotated[
        Seconds, "Time for which the breaker stays open and requests fail immediately; then it sends one probe."
    ] = 5.0


class ShareSettings(Struct, frozen=True):
    """Boards and gateway requests shared with other nodes, through Valkey or Redis. It needs govi-server[share]."""

    url: Annotated[
        str,
        ENGINE,
        "URL of the engine, Valkey 7.2 or Redis 7.0 or newer: redis://user:password@host:6379/0, rediss:// with TLS, "
        "or unix:///path?db=0. Of several hosts, separated by commas, one that is a master is used; empty: boards "
        "are not shared.",
        Option("share"),
    ] = ""
    prefix: Annotated[
        str, PREFIX, "Beginning of all keys and channels; nodes share boards if it and the database are the same."
    ] = "govi-cache"
    authorities: Annotated[
        str, "PEM file of the certificate authorities that sign the engine's certificate; empty: those of the system."
    ] = ""
    certificate: Annotated[
        str, "PEM file of this node's certificate and private key, if the engine requires one; empty: none."
    ] = ""


class FeedLimitSettings(Struct, frozen=True):
    """Size and age of the live feed's messages."""

    message: Annotated[
        Bytes, "Maximum size of a message after gunzip; one night's planning of the largest operator fits."
    ] = 64 << 20
    fresh: Annotated[
        Seconds,
        "Age of an operator's latest data up to which it is fresh; two of its intervals if it repeats more slowly.",
    ] = 60.0
    stale: Annotated[Seconds, "Age of an operator's latest data up to which it is served, as stale; then 503."] = (
        300.0
    )


class SubscriberSettings(Struct, frozen=True):
    """The connection to the live feed."""

    silence: Annotated[Seconds, "Silence after which the connection is closed and reopened."] = 60.0
    recovery: Annotated[
        Seconds, "Time from the first message until the data is complete: two repetitions of the feed."
    ] = 60.0
    back_off: Annotated[
        Seconds, "Maximum pause between connection attempts; the first is 1 s, and each is twice the previous one."
    ] = 30.0
    message: Annotated[
        Bytes, "Maximum size of a message as received (gzip); ZeroMQ closes the connection on a larger frame."
    ] = 16 << 20
    queue: Annotated[Count, "Maximum number of messages that wait to be read; further ones are lost."] = 10_000


class PasstimeSettings(Struct, frozen=True):
    """Sizes of the live feed's tables. A full table evicts what the feed sent only once, or rejects new records."""

    passes: Annotated[
        Count, "Maximum number of passing times; the Netherlands has a few hundred thousand in two hours."
    ] = 4_000_000
    bytes: Annotated[
        Bytes, "Maximum memory of the passing times, about 500 bytes each; those with long texts need up to 3,000."
    ] = 2 << 30
    stops: Annotated[Count, "Maximum number of stops, three times those of the Netherlands."] = 200_000
    messages: Annotated[Count, "Maximum number of general messages, each for one stop."] = 100_000
    message_bytes: Annotated[Bytes, "Maximum memory of the general messages."] = 256 << 20


class PlanningSettings(Struct, frozen=True):
    """Sizes of the timetable's tables. A full table evicts what was published only once, or rejects new records."""

    planned: Annotated[
        Count,
        "Maximum number of planned passing times, about 250 bytes each; those with more than 192 bytes of text are "
        "rejected.",
    ] = 20_000_000
    names: Annotated[
        Count,
        "Maximum rows of each other table (stops, lines, ...), with texts of at most 100 characters; the Netherlands "
        "has 60,000 stops.",
    ] = 500_000


class FeedCacheSettings(Struct, frozen=True):
    """What is remembered of the stops that were requested."""

    bytes: Annotated[
        Bytes,
        "Maximum memory of joined passing times and of the parts of documents that are made of them, 40,000 bytes "
        "for a stop; rendered documents use up to half as much again. The least recently used are evicted.",
    ] = 256 << 20


class FeedSettings(Struct, frozen=True):
    """The live feed KV78turbo, for all modules with source kv78turbo."""

    addresses: Annotated[
        tuple[Annotated[str, FEED], ...],
        "ZeroMQ addresses of the feed, tried in turn, one connection at a time, as its publisher requires; empty: "
        "no feed, only a timetable.",
        Option("feed", "f"),
    ] = (FEED_ADDRESS,)
    timetable: Annotated[
        str,
        "Directory of recorded KV7 (*.ctx, *.gz), read at startup; new files are read once a minute; empty: none.",
        Option("timetable", "t"),
    ] = ""
    gtfs: Annotated[
        str,
        GTFS,
        "Planning and names from GTFS until KV7 comes at night: the address of an index of dated files of KV7, or of "
        "one file, which is requested once a day; or the path of a file or directory; empty: none. What was made of "
        "it is stored in $CACHE_DIRECTORY or ~/.cache/govi-cache.",
        Option("gtfs"),
    ] = GTFS_ADDRESS
    contact: Annotated[
        str,
        CONTACT,
        "URL or e-mail address in the User-Agent of the request for GTFS, as its publisher wishes; empty: none.",
    ] = ""
    limits: FeedLimitSettings = FeedLimitSettings()
    subscriber: SubscriberSettings = SubscriberSettings()
    passtimes: PasstimeSettings = PasstimeSettings()
    cache: FeedCacheSettings = FeedCacheSettings()
    planning: PlanningSettings = PlanningSettings()


class Config(Struct, frozen=True):
    """The complete configuration."""

    version: Annotated[
        int, _whole_number(1, CONFIG_VERSION), "Version of this file's format; a file of a later version is an error."
    ] = CONFIG_VERSION
    listen: Annotated[
        tuple[Annotated[str, ENDPOINT], ...], "Endpoints that serve clients.", Option("listen", "l")
    ] = ("tcp:8080",)
    workers: Annotated[
        int,
        _whole_number(0, 64),
        "Processes that accept connections and serve repeated requests, each on a core of its own (docs/scaling.md); "
        "0: the program serves clients itself. The limits of [access] and of unfinished requests apply to each "
        "worker.",
        Option("workers", "w"),
    ] = 0
    modules: dict[str, ModuleSettings] = msgspec.field(default_factory=dict)
    log: LogSettings = LogSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    pages: PagesSettings = PagesSettings()
    admin: AdminSettings = AdminSettings()
    manhole: ManholeSettings = ManholeSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    limits: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    cache: CacheSettings = CacheSettings()
    gateway: GatewaySettings = GatewaySettings()
    breaker: BreakerSettings = BreakerSettings()
    share: ShareSettings = ShareSettings()
    feed: FeedSettings = FeedSettings()

    def __post_init__(self) -> None:
        if not self.modules:
            self.modules["kv55"] = ModuleSettings()

    @property
    def is_demo(self) -> bool:
        """Whether the departures are those of the fictional town."""
        return any(module.source == "demo" for module in self.modules.values())

    @property
    def is_live(self) -> bool:
        """Whether a module has the live feed as its source."""
        return any(module.source == "kv78turbo" for module in self.modules.values())

    @property
    def endpoints(self) -> list[tuple[str, str]]:
        """The keys and texts of all endpoints on which the program listens."""
        callbacks = [
            (f"modules.{name}.callback", module.callback)
            for name, module in self.modules.items()
            if module.source != "kv78turbo"
        ]
        others = [("admin.listen", self.admin.listen), ("manhole.listen", self.manhole.listen)]
        clients = [(f"listen[{index}]", text) for index, text in enumerate(self.listen)]
        return [*clients, *callbacks, *((key, text) for key, text in others if text)]
