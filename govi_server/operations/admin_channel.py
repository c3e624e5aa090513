"""Connections of the operators' port: they hold no request bodies, and nothing when they end."""

from io import BytesIO

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request


class BodilessRequest(Request):
    """A request whose body is discarded, since no page reads it; Twisted would store it in memory or in a file."""

    def gotLength(self, length: int | None) -> None:
        """Begin an empty body, whatever its length is."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Discard a part of the body."""


class ReleasingChannel(HTTPChannel):
    """A connection that breaks its reference cycles at its end, also amid a request."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the request and the decoder of its body, which refer to this channel."""
        super().connectionLost(reason)
        self._transferDecoder = None
        self._networkProducer = None  # type: ignore[assignment]  # it is no longer used
        self.requests = []
