"""The messages between the main process and a worker, on the pipes of its standard input and output. Pure.

A message is MessagePack after its length in four bytes, big-endian. The main process sends one Assignment; the worker
reports what happens. The main process decodes reports strictly, since a worker reads what clients send.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from govi_server.http.error_responses import ErrorFormats
from govi_server.server import ServerFigures
from govi_server.settings import AccessSettings, ServerSettings
from govi_server.statistics.records import CacheResult, ConnectionStatistics, End, Exchange, RequestStatistics

MAX_MESSAGE_BYTES = 1 << 20
"""Longer messages are invalid; a report of statistics has some 100 kB."""

REPORT_INTERVAL = 1.0
"""Seconds between the figures of a worker, which are its sign of life as well."""

TLS = "--tls"
"""The option of a worker with ssl: endpoints."""

LogLevelName = Literal["debug", "info", "warn", "error", "critical"]


class Certificate(Struct):
    """What an ssl: endpoint needs for TLS. key, certificate, chain: in PEM format.

    The main process reads the files, which may be readable only before it changes its user.
    """

    key: bytes
    certificate: bytes
    chain: list[bytes]
    method: str = ""
    """sslmethod of the endpoint, "" for Twisted's default."""
    dh_parameters: str = ""
    """The file of the Diffie-Hellman parameters, which are public; "" for none."""


class Endpoint(Struct):
    """An endpoint of the worker: the descriptor of its listening socket, and the layers above it."""

    fd: int
    certificate: Certificate | None = None
    """Of TLS, None without."""
    expects_proxy_header: bool = False
    """Whether connections begin with a PROXY header."""


class Assignment(Struct):
    """What a worker serves."""

    number: int
    name: str
    """The name of the server in log lines and statistics."""
    endpoints: list[Endpoint]
    upstream: str
    """The path of the main process's unix socket."""
    modules: list[str]
    """The names of the main process's modules."""
    limits: ServerSettings
    access: AccessSettings
    headers: list[tuple[str, str]]
    """Header fields of every response."""
    errors: ErrorFormats | None = None
    """The formats of errors; None for text."""


class Figures(Struct, tag=True, array_like=True):
    """A sign of life."""

    server: ServerFigures
    processor_seconds: float
    memory_bytes: int


class LogLine(Struct, tag=True, array_like=True):
    """An event of the worker's log. traceback: "" without an exception."""

    level: LogLevelName
    text: str
    traceback: str = ""


_Seconds: TypeAlias = float | None


class _Exchange(Struct, array_like=True, frozen=True):
    """See Exchange."""

    method: str | None
    path: str | None
    status: int | None
    bytes: int
    cache: CacheResult
    module: str | None
    stop: str


class _Connection(Struct, array_like=True):
    """See ConnectionStatistics. requests: for each the index of its exchange, and its phases."""

    client: str
    began: float
    ended: float
    end: End
    requests: list[tuple[int, _Seconds, _Seconds, _Seconds, _Seconds, _Seconds, _Seconds]]


class Statistics(Struct, tag=True, array_like=True):
    """The statistics of connections. exchanges: those of their requests, each once, since most hits share one."""

    exchanges: list[_Exchange]
    connections: list[_Connection]


Report: TypeAlias = Figures | LogLine | Statistics

encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_assignment = msgspec.msgpack.Decoder(Assignment).decode


def pack_statistics(connections: Sequence[ConnectionStatistics]) -> Statistics:
    """Return the report of connections."""
    exchanges: dict[Exchange, int] = {}  # compared by identity
    packed = [
        _Connection(
            connection.client,
            connection.began,
            connection.ended,
            connection.end,
            [
                (
                    exchanges.setdefault(r.exchange, len(exchanges)),
                    r.receive, r.parse, r.lookup, r.wait, r.render, r.send,
                )
                for r in connection.requests
            ],
        )
        for connection in connections
    ]  # fmt: skip
    return Statistics(
        [_Exchange(e.method, e.path, e.status, e.bytes, e.cache, e.module, e.stop) for e in exchanges], packed
    )


@lru_cache(maxsize=8192)
def _shared(exchange: _Exchange) -> Exchange:
    """Return the exchange that all equal ones share, also of other reports: they are counted and formatted once."""
    return Exchange(
        exchange.method, exchange.path, exchange.status, exchange.bytes, exchange.cache, exchange.module,
        exchange.stop,
    )  # fmt: skip


def unpack_statistics(report: Statistics, server: str, worker: int) -> list[ConnectionStatistics]:
    """Return the connections of a worker's report. server: the name of the server. Raises IndexError."""
    exchanges = [_shared(exchange) for exchange in report.exchanges]
    return [
        ConnectionStatistics(
            server,
            connection.client,
            connection.began,
            connection.ended,
            connection.end,
            [
                RequestStatistics(exchanges[index], 0.0, receive, parse, lookup, wait, render, send)
                for index, receive, parse, lookup, wait, render, send in connection.requests
            ],
            worker,
        )
        for connection in report.connections
    ]
