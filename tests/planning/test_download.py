"""Tests of the limits of a download."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from govi_server.planning.download import MAX_DOWNLOAD_SECONDS, SILENCE_SECONDS, Downloader, DownloadError, _Body


class DownloaderTests(SynchronousTestCase):
    """Requests."""

    def test_connections_are_not_logged(self) -> None:
        """Twisted does not log the start of the factory of a request's connection."""
        reactor, logged = MemoryReactorClock(), EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        requested = Deferred.fromCoroutine(Downloader(reactor, "test").index("http://127.0.0.1/"))
        self.addCleanup(requested.addErrback, lambda failure: None)
        self.addCleanup(requested.cancel)
        _, _, factory, _, _ = reactor.tcpClients[0]
        factory.doStart()
        self.assertEqual([*logged], [])


class BodyTests(SynchronousTestCase):
    """The body of an index or a file of 1,000 bytes at most."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.received: list[bytes] = []
        self.body = _Body(self.received.append, 1000, self.clock)
        self.transport = StringTransport()
        self.body.makeConnection(self.transport)

    def check_failure(self, reason: str) -> None:
        """Check that the download has failed, and holds no connection and no time."""
        self.assertEqual(str(self.failureResultOf(self.body.done, DownloadError).value), reason)
        self.assertTrue(self.transport.disconnecting)
        self.body.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_server(self) -> None:
        """A server that sends a byte now and then has half an hour."""
        pause = SILENCE_SECONDS - 1
        for _ in range(int(MAX_DOWNLOAD_SECONDS / pause)):
            self.clock.advance(pause)
            self.body.dataReceived(b"x")
        self.assertNoResult(self.body.done)
        self.clock.advance(pause)
        self.body.dataReceived(b"x")
        self.check_failure("takes longer than 1800 s")

    def test_silence(self) -> None:
        """A server that sends nothing for a minute is given up."""
        self.body.dataReceived(b"x")
        self.clock.advance(SILENCE_SECONDS)
        self.check_failure("nothing received for a minute")

    def test_too_large(self) -> None:
        """What is larger than the limit is neither received nor stored further."""
        self.body.dataReceived(b"x" * 999)
        self.body.dataReceived(b"xx")
        self.check_failure("too large")
        self.body.dataReceived(b"x")
        self.assertEqual(self.received, [b"x" * 999])

    def test_end(self) -> None:
        """A body whose end was received is complete."""
        self.body.dataReceived(b"x")
        self.body.connectionLost(Failure(ResponseDone()))
        self.assertTrue(self.successResultOf(self.body.done))
        self.assertEqual(self.clock.getDelayedCalls(), [])
