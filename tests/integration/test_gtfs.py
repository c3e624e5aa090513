"""Tests of downloading and compiling GTFS files over real sockets and in a real process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from govi_server.planning import download
from govi_server.planning.compiling import compile_in_child
from govi_server.planning.download import Downloader, DownloadError, Validators
from govi_server.planning.planning import Planning
from tests.planning.files import TODAY, tables, zipped

FILE = "/govi/gtfs-kv7-20260101.zip"
MODIFIED = "Thu, 01 Jan 2026 02:00:00 GMT"
CONTENT = zipped(tables())


class Publisher(Resource):
    """A site whose responses the test sets. requests: the header fields of its requests."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[dict[str, str]] = []
        self.respond: Callable[[Request], bytes | int] = send_file

    def render_GET(self, request: Request) -> bytes | int:
        headers = request.requestHeaders.getAllRawHeaders()
        self.requests.append({name.decode().lower(): values[-1].decode() for name, values in headers})
        return self.respond(request)


def send_file(request: Request) -> bytes:
    """Send the file, or 304."""
    request.setHeader("Last-Modified", MODIFIED)
    request.setHeader("ETag", '"1"')
    if request.getHeader("If-None-Match") == '"1"' and request.getHeader("If-Modified-Since") == MODIFIED:
        request.setResponseCode(304)
        return b""
    return CONTENT


def send_index(request: Request) -> bytes:
    """Send an index, after a redirect."""
    if request.path == b"/govi":
        request.redirect(b"/govi/")
        return b""
    return b'<a href="gtfs-kv7-20260101.zip">'


def truncate(request: Request) -> int:
    """Close the connection in the middle of the file."""
    request.setHeader("Content-Length", str(len(CONTENT)))
    request.write(CONTENT[:100])
    assert request.transport is not None
    request.transport.loseConnection()
    return int(NOT_DONE_YET)


def truncate_without_length(request: Request) -> int:
    """Close the connection in the middle of a file of unknown length."""
    assert request.transport is not None
    request.transport.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\n' + CONTENT[:100])
    request.transport.loseConnection()
    return int(NOT_DONE_YET)


def stop_sending(request: Request) -> int:
    """Send nothing after the first bytes."""
    request.write(CONTENT[:100])
    return int(NOT_DONE_YET)


def status(code: int) -> Callable[[Request], bytes]:
    """Return a response with a status."""

    def respond(request: Request) -> bytes:
        request.setResponseCode(code)
        return b"<html>"

    return respond


@pytest.fixture
def publisher() -> Iterator[tuple[Publisher, str]]:
    """Run a site; yield it with its URL."""
    resource = Publisher()
    real: Any = reactor
    port = real.listenTCP(0, Site(resource, timeout=None), interface="127.0.0.1")
    yield resource, f"http://127.0.0.1:{port.getHost().port}"
    pytest_twisted.blockon(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_download(publisher: tuple[Publisher, str], tmp_path: Path) -> None:
    """A file is stored with its time; a request for a known version is conditional."""
    site, url = publisher
    downloader, path = Downloader(reactor, "govi-cache/1 (ops@example.org)"), tmp_path / "x"
    version = await downloader.fetch(url + FILE, path, Validators())
    assert version == Validators('"1"', MODIFIED)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mtime == 1_767_232_800
    assert await downloader.fetch(url + FILE, path, version) is None
    assert [request["user-agent"] for request in site.requests] == ["govi-cache/1 (ops@example.org)"] * 2


@pytest_twisted.ensureDeferred
async def test_index_after_a_redirect(publisher: tuple[Publisher, str]) -> None:
    """Links are relative to the address that the request was redirected to."""
    site, url = publisher
    site.respond = send_index
    (file,) = await Downloader(reactor, "x").index(f"{url}/govi")
    assert (file.day, file.url) == (TODAY, url + FILE)


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (status(404), "HTTP status 404"),
        (status(500), "HTTP status 500"),
        (truncate, "the connection was lost before the end"),
        (send_file, "too large"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_failed_download(
    publisher: tuple[Publisher, str], tmp_path: Path, monkeypatch: Any, respond: Any, reason: str
) -> None:
    """A response with another status, that is cut off or too large is an error with its reason."""
    site, url = publisher
    site.respond = respond
    monkeypatch.setattr(download, "MAX_FILE_BYTES", len(CONTENT) - 1)
    with pytest.raises(DownloadError, match=reason):
        await Downloader(reactor, "x").fetch(url + FILE, tmp_path / "x", Validators())


@pytest_twisted.ensureDeferred
async def test_file_of_unknown_length(publisher: tuple[Publisher, str], tmp_path: Path) -> None:
    """A file that may have been cut off has no version, so that it is fetched again if it is damaged."""
    site, url = publisher
    site.respond = truncate_without_length
    assert await Downloader(reactor, "x").fetch(url + FILE, tmp_path / "x", Validators()) == Validators()
    assert (tmp_path / "x").read_bytes() == CONTENT[:100]


@pytest_twisted.ensureDeferred
async def test_silent_server(publisher: tuple[Publisher, str], tmp_path: Path, monkeypatch: Any) -> None:
    """A server that sends nothing for some time is given up, and so is one that does not respond."""
    site, url = publisher
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.2)
    for respond in (stop_sending, lambda request: NOT_DONE_YET):
        site.respond = respond
        with pytest.raises(DownloadError, match=r"nothing received|no response within"):
            await Downloader(reactor, "x").fetch(url + FILE, tmp_path / "x", Validators())


@pytest_twisted.ensureDeferred
async def test_no_server(tmp_path: Path) -> None:
    """A refused connection is an error with its reason."""
    with pytest.raises(DownloadError, match="refused"):
        await Downloader(reactor, "x").fetch(f"http://127.0.0.1:1{FILE}", tmp_path / "x", Validators())


@pytest_twisted.ensureDeferred
async def test_compiling_in_a_child(tmp_path: Path, monkeypatch: Any) -> None:
    """A process compiles a file, in any working directory, and reports why it refuses one."""
    monkeypatch.chdir(tmp_path)
    source, target = tmp_path / "gtfs-kv7-20260101.zip", tmp_path / "planning"
    source.write_bytes(CONTENT)
    result = await compile_in_child(reactor, source, source.name, None, target, TODAY, (1000, 1000))
    assert (result.error, result.n_stops) == ("", 1)
    assert Planning.open(target).header.name == source.name
    source.write_bytes(CONTENT[:-50])
    result = await compile_in_child(reactor, source, source.name, None, target, TODAY, (1000, 1000))
    assert "not a zip file" in result.error


@pytest_twisted.ensureDeferred
async def test_cancelled_compiling(tmp_path: Path) -> None:
    """Cancelling ends the process."""
    source = tmp_path / "fifo"
    (tmp_path / "fifo").symlink_to("/dev/zero")
    work: Deferred[Any] = Deferred.fromCoroutine(
        compile_in_child(reactor, source, "x", None, tmp_path / "planning", TODAY, (1000, 1000))
    )
    work.cancel()
    with pytest.raises(CancelledError):
        await work
