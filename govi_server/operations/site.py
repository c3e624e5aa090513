"""A web site for operators and their tools: private pages without request bodies, only for the server's own names."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from govi_server.http.hosts import MISDIRECTED, rejected_host, rejection
from govi_server.http.negotiation import best_type
from govi_server.http.response import POLICY, format_response, with_safety_headers
from govi_server.operations.admin_channel import BodilessRequest, ReleasingChannel
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.runtime.version import SOFTWARE
from govi_server.sockets.accepting import AcceptThrottle

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The policy of the status page, which has inline styles and reloads itself: no scripts, nothing is loaded."""

_TARGET_HOST = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)")
"""The host in a request target in absolute form."""


class _Request(BodilessRequest):
    """A request whose response has the headers of all responses; rejected if its host may belong to another site."""

    def process(self) -> None:
        """Process the request."""
        for name, value in with_safety_headers(()):
            self.setHeader(name, value)
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if target := _TARGET_HOST.match(self.uri):
            hosts = [*hosts, target[1]]
        site = cast(OperatorsSite, self.channel.factory)
        host = site.rejected_host([host.decode("latin-1").strip() for host in hosts])
        if host is None:
            super().process()
        else:
            send(self, int(MISDIRECTED.partition(" ")[0]), TEXT, rejection(host, site.hosts_setting).encode())


class _Channel(ReleasingChannel):
    """A connection whose rejections of malformed requests have the headers of all responses as well."""

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Overridden although it is private: it writes a response of its own, without header fields.
        self._close_with("400 Bad Request", b"Bad request\n")

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a line of the header section that is too long; the base closes the connection without a response."""
        if self.requests:  # the request line was received
            self._close_with("431 Request Header Fields Too Large", b"Header field too long\n")
        else:
            self._close_with("414 URI Too Long", b"Request line too long\n")

    def _close_with(self, status: str, body: bytes) -> None:
        assert self.transport is not None
        now = cast(OperatorsSite, self.factory).reactor.seconds()
        fields = {"Content-Type": TEXT, "Server": SOFTWARE}
        self.transport.write(format_response(status, fields, body, now=now, connection="close"))
        self.loseConnection()


class OperatorsSite(Site):
    """The web site for operators and their tools.

    pages: by path. hosts: names of the server besides its addresses and localhost. hosts_setting: the setting or
    option of these names, for error messages.
    """

    name = "operators"
    """The name in log lines."""
    noisy = False
    protocol = _Channel  # type: ignore[assignment]  # Twisted wraps it for HTTP/2, which operators do not need
    requestFactory = _Request
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pages: Mapping[str, Resource],
        hosts: Sequence[str] = (),
        hosts_setting: str = "admin.hosts",
    ) -> None:
        root = _Root()
        super().__init__(root, reactor=clock)
        self.accepting = AcceptThrottle(clock, self.name, drops=False)
        self.hosts_setting = hosts_setting
        self._hosts = hosts
        self._warnings = ThrottledWarnings(self._log, clock)
        for path, page in pages.items():
            root.putChild(path.encode(), page)

    def logPrefix(self) -> str:
        """Return the name in Twisted's own log lines."""
        return self.name

    def log(self, request: Request) -> None:
        """Do not log requests: metrics are scraped every few seconds."""

    def set_hosts(self, hosts: Sequence[str]) -> None:
        """Set the names of the server."""
        self._hosts = hosts

    def rejected_host(self, hosts: Sequence[str]) -> str | None:
        """Return a host of a request that may belong to another site, after logging it; None if there is none."""
        host = rejected_host(hosts, self._hosts)
        if host is not None:
            text = "{name}: request for host {host!r} rejected; {setting} lists the allowed names"
            self._warnings.add("host", text, name=self.name, host=host, setting=self.hosts_setting)
        return host


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        return Page(TEXT, lambda: b"no such path\n", 404)


class Page(Resource):
    """A page that is rendered for each request."""

    isLeaf = True

    def __init__(self, content_type: str, render: Callable[[], bytes], status: int = 200) -> None:
        super().__init__()
        self._status = status
        self._content_type = content_type
        self._render = render

    def render_GET(self, request: Request) -> int:
        """Send the page."""
        send(request, self._status, self._content_type, self._render())
        return NOT_DONE_YET


class Alternatives(Resource):
    """A page in several media types, of which the client selects one with Accept; the first is the default."""

    isLeaf = True

    def __init__(self, pages: Mapping[str, Page]) -> None:
        super().__init__()
        self._pages = pages

    def render_GET(self, request: Request) -> int:
        """Send the page in the accepted type."""
        return self._pages[accepted_type(request, list(self._pages))].render_GET(request)


def accepted_type(request: Request, offered: Sequence[str]) -> str:
    """Return the media type that a client prefers, the first offered by default; the response varies by it."""
    request.setHeader("vary", "Accept")
    fields = request.requestHeaders.getRawHeaders("accept", [])
    return best_type(",".join(fields), offered)


def send(request: Request, status: int, content_type: str, body: bytes) -> None:
    """Send a response with its length. For HEAD, which states it as well, Twisted omits the body."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())  # Twisted lacks that of 421
    request.setHeader("content-type", content_type)
    request.setHeader("cache-control", "no-store")
    request.setHeader("server", SOFTWARE)
    request.setHeader("content-length", f"{len(body)}")
    if content_type == HTML:
        request.setHeader(POLICY, _PAGE_POLICY)
    request.write(body)
    request.finish()
