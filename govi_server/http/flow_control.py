"""Half-closed connections, and clients that do not read their responses."""

from abc import abstractmethod

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from zope.interface import implementer

from govi_server.http.connection import Connection
from govi_server.http.sender import Sender
from govi_server.http.state import Input, State


@implementer(IHalfCloseableProtocol, IPushProducer)
class FlowControl(Sender):
    """Receives as fast as the client reads: as its transport's producer, it is paused while the client does not read.

    A subclass implements finish_request().
    """

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self._processing: Deferred[None] | None = None
        """Fires when the module has finished; None between requests."""

    @abstractmethod
    def finish_request(self) -> None:
        """End the current request, whose response was written."""

    @property
    def paused(self) -> bool:
        """Whether received bytes are buffered."""
        return self.connection.state.rule.input is not Input.PARSED

    def readConnectionLost(self) -> None:
        """Close after the responses to all complete requests: the client has closed its sending side."""
        self.read_closed = True
        if self.connection.is_ending:
            self.sock.loseConnection()
        elif not self.paused or self.is_streaming:
            self.connection.close("client")

    def writeConnectionLost(self) -> None:
        """Wait until the client closes its side as well."""

    def pauseProducing(self) -> None:
        """Stop receiving: the client does not read its responses."""
        if self.connection.state in (State.SENDING, State.STREAMING):
            self.connection.enter(State.WRITE_PAUSED)
            self.connection.hold(self.held + self._response_size)
        self.sock.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue: the client has read its responses."""
        if self.connection.state is not State.WRITE_PAUSED:
            if not self.paused:
                self.sock.resumeProducing()
        elif self._processing is None:
            self.connection.enter(State.SENDING)
            self.finish_request()
        else:
            self.connection.enter(State.STREAMING if self.is_streaming else State.SENDING)
            self.connection.hold(self.held)
            if self.is_streaming:
                self.sock.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: connectionLost() follows."""
