"""What the rooms of the house ask of each other. Imports nothing of ours."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from govi_server.contract import Parameter, Path
    from govi_server.departures.board import Board
    from govi_server.environ import Environ
    from govi_server.modules.live import Query
    from govi_server.modules.signs import Told
    from govi_server.ready import Ready
    from govi_server.request_handler import RequestHandler
    from govi_server.web_handler import WebHandler


class IClientTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a connection does with its transport."""


class IWebModule(Interface):
    """What a service must provide to answer under the URL segment that is its name."""

    def web_handler(request_handler: "RequestHandler", env: "Environ") -> "WebHandler":
        """Make the handler of one request."""


class IReadyModule(IWebModule):
    """A module that may have an answer at hand."""

    def ready(env: "Environ") -> "Callable[[], Ready | None] | None":
        """Give what answers a GET like this one from now on, as long as it can; None if nothing ever will.

        What it gives depends on nothing else of the request, and is what the WebHandler would send.
        """


class IDeclared(Interface):
    """What a module provides that says of itself what may be asked of it: /openapi.json and /docs tell it."""

    def contract() -> "Sequence[Path]":
        """List its paths."""


class IPoster(Interface):
    """What sends messages to a gateway."""

    def post(body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Send a message; fires when it was taken, fails with an error whose text says why not."""

    def close() -> Deferred[None]:
        """Close the connections that are kept."""


class IDepartureSource(Interface):
    """Where boards come from."""

    def board(code: str) -> "Deferred[Board]":
        """Ask for the board of a TimingPointCode; fails with a NoBoard, in a time that the source bounds."""

    def listen(heard: "Callable[[Board], object]") -> None:
        """Have heard called with each board that comes when nobody waits for it any more."""


class IDepartureSigns(Interface):
    """Where the signs of stops come from."""

    picked: "tuple[Parameter, ...]" = Attribute("The parameters of a query that it can tell.")
    about: "tuple[str, ...]" = Attribute("Names of the header fields that it always says of a sign.")
    perhaps: "tuple[str, ...]" = Attribute("Names of those that it says at times.")

    def sign(codes: "list[str]", query: "Query") -> "Awaitable[Told]":
        """Give the sign of some stops, whatever is known of them. Raises BadQuery for what cannot be told here."""

    def version(codes: "Sequence[str]") -> object:
        """Give what is another thing when there may be something new of some stops."""
