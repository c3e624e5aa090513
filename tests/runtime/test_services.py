"""How the parts start and end."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.runtime.services import Drain, OrderedMultiService
from govi_server.sockets.listener import Listener, server_service
from tests.client import WireTestCase


class Part(Service):
    """Writes down what is done to it."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.diary = diary
        self.stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        self.diary.append(f"start {self.name}")

    def stopService(self) -> Deferred[None]:
        self.diary.append(f"stop {self.name}")
        return self.stopped


class Broken(Part):
    """Cannot start, and cannot stop either."""

    def startService(self) -> None:
        raise StartupError("no luck today")

    def stopService(self) -> Deferred[None]:
        raise ZeroDivisionError("nor now")


class InOrderTests(SynchronousTestCase):
    """Services in order."""

    def test_order(self) -> None:
        """The last to start is the first to stop, and each waits for the one after it."""
        diary: list[str] = []
        services = OrderedMultiService()
        parts = [Part(name, diary) for name in "abc"]
        for part in parts:
            services.addService(part)
        services.startService()
        stopped = services.stopService()
        self.assertEqual(diary, ["start a", "start b", "start c", "stop c"])
        parts[2].stopped.callback(None)
        self.assertEqual(diary[4:], ["stop b"])
        parts[1].stopped.callback(None)
        self.assertNoResult(stopped)
        parts[0].stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(diary[4:], ["stop b", "stop a"])

    def test_cannot_start(self) -> None:
        """A part that cannot start ends the program with its line in the log and status 1."""
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        services = OrderedMultiService()
        services.addService(Broken("a", []))
        with self.assertRaises(SystemExit) as caught:
            services.startService()
        self.assertEqual(caught.exception.code, 1)
        self.assertEqual([str(event["error"]) for event in observer if "error" in event], ["no luck today"])

    def test_cannot_stop(self) -> None:
        """A part that fails to stop does not keep the others from it."""
        diary: list[str] = []
        services = OrderedMultiService()
        first = Part("a", diary)
        first.stopped.callback(None)
        services.addService(first)
        services.addService(Broken("b", diary))
        self.successResultOf(services.stopService())
        self.assertEqual(diary, ["stop a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class _TakenPort(MemoryReactorClock):
    def listenTCP(self, port, factory, backlog=50, interface=""):  # type: ignore[no-untyped-def]  # as in its base
        raise CannotListenError(interface, port, OSError(98, "Address already in use"))


class ListenerTests(WireTestCase):
    """Listening."""

    def test_listens(self) -> None:
        """Every endpoint is listened on, and its address told."""
        reactor = MemoryReactorClock()
        addresses: list[object] = []
        services = server_service(
            reactor, self.server, ["tcp:8080", "tcp:8443:interface=127.0.0.1"], addresses.append
        )
        services.privilegedStartService()
        services.startService()
        self.assertEqual(
            [(port, factory) for port, factory, _, _ in reactor.tcpServers],
            [(8080, self.server), (8443, self.server)],
        )
        self.assertEqual(len(addresses), 2)

    def test_stops_before_it_drains(self) -> None:
        """When it stops it listens no more, and is over when the last connection is."""
        services = server_service(MemoryReactorClock(), self.server, ["tcp:8080"])
        services.startService()
        client = self.client()
        client.get("/parrot/waits")
        stopped = services.stopService()
        self.assertNoResult(stopped)
        self.assertTrue(self.server.draining)
        self.parrot.waiting.pop().callback("a")
        self.assertEqual(client.answer().body, b"a")
        client.leave()
        self.successResultOf(stopped)

    def test_taken(self) -> None:
        """A taken port is told with its endpoint and what it was for."""
        listener = Listener(_TakenPort(), "tcp:8080", self.server)
        with self.assertRaises(StartupError) as caught:
            listener.privilegedStartService()
        self.assertEqual(str(caught.exception), "cannot listen on tcp:8080 for govi-cache: Address already in use")

    def test_no_endpoint(self) -> None:
        """What is no endpoint is told as it was written."""
        for text in ("", "foo:1", "tcp", "tcp:x", "tcp:1:foo=2", "ssl:1:privateKey=/nonexistent"):
            with self.assertRaises(StartupError) as caught:
                Listener(MemoryReactorClock(), text, self.server)
            self.assertIn(repr(text), str(caught.exception))

    def test_drain(self) -> None:
        """A Drain is over when what it drains is."""
        drained: Deferred[None] = Deferred()
        self.assertIs(Drain(lambda: drained).stopService(), drained)
