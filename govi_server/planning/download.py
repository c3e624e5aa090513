"""Downloads GTFS files: reads the index of a site, and fetches a file that has changed since the last time."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from email.utils import parsedate_to_datetime
from html import unescape
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, RedirectAgent, ResponseDone, _HTTP11ClientFactory
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

SILENCE_SECONDS = 60.0
"""How long a server may send nothing."""

MAX_DOWNLOAD_SECONDS = 1800.0
"""Time for the whole body of a response."""

MAX_FILE_BYTES = 512 << 20
"""Ten times the largest file that was seen (docs/protocols.md, section 6)."""

MAX_INDEX_BYTES = 1 << 20
MAX_REDIRECTS = 5

_LINK = re.compile(r"""\shref\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_FILE = re.compile(r"gtfs-kv7-(\d{4})(\d{2})(\d{2})\.zip", re.ASCII)


class DownloadError(Exception):
    """A download failed; the message is the reason."""


class IndexedFile(NamedTuple):
    """A file that an index lists."""

    day: date
    name: str
    url: str


class Validators(NamedTuple):
    """What identifies the version of a file for a conditional request (RFC 9110, section 13); "" if unknown."""

    etag: str = ""
    last_modified: str = ""


def file_date(name: str) -> date | None:
    """Return the date in the name of a file, gtfs-kv7-20261129.zip; None for another name."""
    match = _FILE.fullmatch(name)
    try:
        return None if match is None else date(*map(int, match.groups()))
    except ValueError:
        return None


def read_index(html: str, url: str) -> list[IndexedFile]:
    """Return the files that an index links to on its own site, the newest first. url: of the index."""
    site = urlsplit(url)[:2]
    files = {}
    for link in _LINK.findall(html):
        target = urljoin(url, unescape(link))
        name = urlsplit(target).path.rpartition("/")[2]
        day = file_date(name)
        if day is not None and urlsplit(target)[:2] == site:
            files[day] = IndexedFile(day, name, target)
    return [files[day] for day in sorted(files, reverse=True)]


class _QuietFactory(_HTTP11ClientFactory):
    """Does not log the start and end of each connection."""

    noisy = False


class Downloader:
    """Sends requests for files. user_agent: identifies this program and its contact."""

    def __init__(self, reactor: Any, user_agent: str) -> None:
        self._clock: IReactorTime = reactor
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool._factory = _QuietFactory
        self._agent = RedirectAgent(Agent(reactor, connectTimeout=SILENCE_SECONDS, pool=pool), MAX_REDIRECTS)
        self._user_agent = user_agent

    async def index(self, url: str) -> list[IndexedFile]:
        """Return the files that an index lists, the newest first. Raises DownloadError."""
        chunks: list[bytes] = []
        response = await self._request(url, Validators())
        if response.code != 200:
            raise DownloadError(f"{url}: HTTP status {response.code}")
        await self._receive(url, response, chunks.append, MAX_INDEX_BYTES)
        files = read_index(b"".join(chunks).decode("utf-8", "replace"), response.request.absoluteURI.decode())
        if not files:
            raise DownloadError(f"{url}: lists no file gtfs-kv7-YYYYMMDD.zip")
        return files

    async def fetch(self, url: str, path: Path, known: Validators) -> Validators | None:
        """Write a file to a path, unless it is still the known version; return its version, None if it is the same.

        The version is unknown if the file may have been cut off. The file gets the time of its last modification.
        Raises DownloadError.
        """
        response = await self._request(url, known)
        if response.code == 304:
            await self._receive(url, response, lambda data: None, MAX_INDEX_BYTES)
            return None
        if response.code != 200:
            raise DownloadError(f"{url}: HTTP status {response.code}")
        try:
            with path.open("wb") as file:
                is_complete = await self._receive(url, response, _write_to(file), MAX_FILE_BYTES)
        except OSError as error:
            raise DownloadError(f"{path}: {error.strerror}") from None
        if not is_complete:
            return Validators()
        etag, last_modified = (_field(response.headers, name) for name in (b"ETag", b"Last-Modified"))
        with suppress(ValueError, OverflowError, OSError):
            modified = parsedate_to_datetime(last_modified).timestamp()
            os.utime(path, (modified, modified))
        return Validators(etag, last_modified)

    async def _request(self, url: str, known: Validators) -> Any:
        headers = Headers({b"User-Agent": [self._user_agent.encode()]})
        if known.etag:
            headers.addRawHeader(b"If-None-Match", known.etag.encode())
        if known.last_modified:
            headers.addRawHeader(b"If-Modified-Since", known.last_modified.encode())
        requested = self._agent.request(b"GET", url.encode(), headers)
        requested.addTimeout(SILENCE_SECONDS, self._clock)
        try:
            return await requested
        except CancelledError:
            raise
        except Exception as error:
            raise DownloadError(f"{url}: {_reason(error)}") from None

    async def _receive(self, url: str, response: Any, write: Callable[[bytes], object], max_bytes: int) -> bool:
        """Receive the body of a response; return whether it is known to be complete. Raises DownloadError."""
        body = _Body(write, max_bytes, self._clock)
        response.deliverBody(body)
        try:
            return await body.done
        except DownloadError as error:
            raise DownloadError(f"{url}: {error}") from None


class _Body(Protocol):
    """Receives the body of a response."""

    def __init__(self, write: Callable[[bytes], object], max_bytes: int, clock: IReactorTime) -> None:
        self.done: Deferred[bool] = Deferred(lambda _: self._abort())
        """Fires with whether the body is known to be complete."""
        self._write = write
        self._remaining = max_bytes
        self._clock = clock
        self._ends_at = clock.seconds() + MAX_DOWNLOAD_SECONDS
        self._timeout: IDelayedCall = clock.callLater(SILENCE_SECONDS, self._fail, "nothing received for a minute")

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._remaining -= len(data)
        if self._remaining < 0:
            self._fail("too large")
        elif self._clock.seconds() > self._ends_at:
            self._fail(f"takes longer than {MAX_DOWNLOAD_SECONDS:g} s")
        else:
            self._timeout.reset(SILENCE_SECONDS)
            try:
                self._write(data)
            except OSError as error:
                self._fail(f"cannot be stored: {error.strerror}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        if self.done.called:
            return
        # Without a length, a zip that is cut off is found out when it is read.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(reason.check(ResponseDone) is not None)
        else:
            self.done.errback(DownloadError("the connection was lost before the end"))

    def _fail(self, reason: str) -> None:
        if not self.done.called:
            self.done.errback(DownloadError(reason))
        self._abort()

    def _abort(self) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        if self.transport is not None:
            self.transport.loseConnection()


def _write_to(file: IO[bytes]) -> Callable[[bytes], object]:
    return file.write


def _field(headers: Headers, name: bytes) -> str:
    """Return a header field, "" without one or if it could not be sent back."""
    value = (headers.getRawHeaders(name) or [b""])[-1]
    return value.decode() if value.isascii() and value.decode().isprintable() and len(value) < 200 else ""


def _reason(error: Exception) -> str:
    reasons = getattr(error, "reasons", [Failure(error)])  # of twisted.web's ResponseFailed
    if any(reason.check(TimeoutError, ConnectingCancelledError, CancelledError) for reason in reasons):
        return f"no response within {SILENCE_SECONDS:g} s"
    return "; ".join(reason.getErrorMessage().rstrip(".") or reason.type.__name__ for reason in reasons)
