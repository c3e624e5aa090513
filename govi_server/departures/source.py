"""The source of boards, and how a request to it fails."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from govi_server.departures.board import Board


class NoBoard(Exception):
    """A source did not return a stop's board; the text says why, for the log and the client."""


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
        """Request the board of a TimingPointCode; fails with a NoBoard, within a time that the source bounds."""

    def listen(on_board: "Callable[[Board], object]") -> None:
        """Call a function with each board that arrives when its request has failed already."""
