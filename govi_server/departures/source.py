"""The interface of sources of boards, and the errors of requests to them."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from govi_server.departures.board import Board


class NoBoard(Exception):
    """The source did not return a stop's board; the message is the reason, for the log and the client."""


class Busy(NoBoard):
    """Too many requests to the source are pending."""


class SourceSilent(NoBoard):
    """The source accepted the request, but did not respond in time."""


class SourceUnreachable(NoBoard):
    """The source did not accept the request: connection refused or broken, or not acknowledged in time."""


class SourceBroken(NoBoard):
    """The source's response is unreadable."""


class IDepartureSource(Interface):
    """A source of boards."""

    def board(code: str) -> "Deferred[Board]":
        """Request the board of a TimingPointCode. Fails with NoBoard, within a time bounded by the source."""

    def listen(on_board: "Callable[[Board], object]") -> None:
        """Call a function with each board that arrives after its request has failed."""


class IAcknowledgingSource(IDepartureSource):
    """A source that acknowledges requests before it responds to them."""

    def listen_accepted(on_accepted: "Callable[[], object]") -> None:
        """Call a function whenever the source has acknowledged a request."""
