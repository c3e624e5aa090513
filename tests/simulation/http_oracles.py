"""The rules of HTTP that every response follows, whatever it is about (RFC 9110, RFC 9111)."""

from __future__ import annotations

import gzip
import re
import zlib
from email.utils import parsedate_to_datetime
from hashlib import blake2b

from tests.simulation.gateway_oracles import FRESH
from tests.simulation.oracles import Oracle
from tests.simulation.users import Exchange, Operator

MAX_AGE = 10
"""Seconds for which the remaining minutes of a board allow."""
BOARDS = ("kv55", "arriva", "live", "tpc", "siri", "board", "line", "journey")
"""Modules whose responses depend on Accept-Encoding, and say how long they may be stored."""


class Representations(Oracle):
    """An entity tag names the same bytes for ever, Vary names what they depend on, HEAD and 304 tell of the GET."""

    def __init__(self, world: object) -> None:
        super().__init__(world)  # type: ignore[arg-type]
        self.bodies: dict[tuple[str, str], tuple[bytes, int, str]] = {}
        """By path and entity tag: the body's digest, length and content coding."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.status not in (200, 304) or exchange.module not in BOARDS:
            return
        assert exchange.response is not None
        etag = exchange.header("etag")
        if etag is None:
            self.found(f"{exchange}: {exchange.status} without ETag")
            return
        coding = exchange.header("content-encoding") or ""
        if coding and "gzip" not in exchange.fields.get("Accept-Encoding", ""):
            self.found(f"{exchange}: {coding} was not accepted")
        vary = (exchange.header("vary") or "").lower()
        if "accept-encoding" not in vary or (exchange.module == "board" and "accept" not in vary.split(", ")):
            self.found(f"{exchange}: Vary is {vary!r}")
        key = exchange.path, etag
        known = self.bodies.get(key)
        if exchange.status == 304:
            had = exchange.known.header("etag") if exchange.known is not None else None
            since, modified, now = (
                parsedate_to_datetime(value) if value else None
                for value in (
                    exchange.fields.get("If-Modified-Since"),
                    *map(exchange.header, ("last-modified", "date")),
                )
            )
            # A board of another node, or after the clock was set back, may be older than the client's.
            is_older = since is not None and modified is not None and now is not None and modified <= since <= now
            if etag != had and not is_older:
                self.found(f"{exchange}: 304 with {etag}, to {had}")
        elif exchange.method == "HEAD":
            length = int(exchange.header("content-length") or -1)
            if known is not None and known[1] != length:
                self.found(f"{exchange}: HEAD has length {length}, and GET {known[1]}")
        else:
            body = exchange.response.body
            item = blake2b(body, digest_size=8).digest(), len(body), coding
            if known is None:
                self.bodies[key] = item
            elif known != item:
                self.found(f"{exchange}: {etag} had another body: {known}, {item}")
            if coding:
                try:
                    gzip.decompress(body)
                except (OSError, EOFError, zlib.error) as error:
                    self.found(f"{exchange}: not gzip: {error}")


class Fields(Oracle):
    """Every response is dated now, says whether it may be stored, and has the safety headers."""

    def completed(self, exchange: Exchange) -> None:
        world = self.world
        if isinstance(exchange.user, Operator) or exchange.books.is_unclean:
            return
        if exchange.header("x-content-type-options") != "nosniff" or not exchange.header("content-security-policy"):
            self.found(f"{exchange}: lacks safety headers")
        control = exchange.header("cache-control")
        if exchange.module in BOARDS and exchange.status not in (406, 429) and not control:
            self.found(f"{exchange}: {exchange.status} without Cache-Control")
        if exchange.status >= 400 and control not in (None, "no-store"):
            self.found(f"{exchange}: {exchange.status} with Cache-Control: {control}")
        limit = FRESH if exchange.module in world.gateways else MAX_AGE
        if (match := re.search(r"max-age=(\d+)", control or "")) and int(match[1]) > limit:
            self.found(f"{exchange}: may be stored for {match[1]} s")
        if exchange.status == 503 and not exchange.header("retry-after"):
            self.found(f"{exchange}: 503 without Retry-After")
        if exchange.header("access-control-allow-origin") != "*":
            self.found(f"{exchange}: no site may read it")
        if not world.steps:
            date = parsedate_to_datetime(exchange.header("date") or "").timestamp()
            assert exchange.ended_at is not None
            if not exchange.sent_at - 1.1 < date <= exchange.ended_at + 0.1:
                self.found(f"{exchange}: Date is {date - exchange.ended_at:+.1f} s")


HTTP_ORACLES = (Representations, Fields)
