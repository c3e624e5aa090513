"""Where boards come from, and how asking for one fails."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from govi_server.departures.board import Board


class NoBoard(Exception):
    """A source could not tell a stop's board; the text says why, for the log and the client."""


class Busy(NoBoard):
    """So many questions are on their way that no other one is asked."""


class SourceSilent(NoBoard):
    """The source took the question and gave no answer in time."""


class SourceUnreachable(NoBoard):
    """The source did not take the question: refused, broken off, or not acknowledged in time."""


class SourceBroken(NoBoard):
    """The source answered with something that cannot be read."""


class IDepartureSource(Interface):
    """Where boards come from."""

    def board(code: str) -> "Deferred[Board]":
        """Ask for the board of a TimingPointCode; fails with a NoBoard, in a time that the source bounds."""

    def listen(heard: "Callable[[Board], object]") -> None:
        """Have heard called with each board that comes when nobody waits for it any more."""
