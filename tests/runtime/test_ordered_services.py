"""Starting and stopping services."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.runtime.ordered_services import Drain, OrderedMultiService


class Recorder(Service):
    """Records its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls
        self.stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        self.calls.append(f"start {self.name}")

    def stopService(self) -> Deferred[None]:
        self.calls.append(f"stop {self.name}")
        return self.stopped


class Broken(Recorder):
    """Fails to start and to stop."""

    def startService(self) -> None:
        raise StartupError("cannot listen")

    def stopService(self) -> Deferred[None]:
        raise ZeroDivisionError("cannot stop")


class OrderedMultiServiceTests(SynchronousTestCase):
    """Ordered services."""

    def test_services_stop_in_reverse_order(self) -> None:
        """Services stop in reverse order, each after the stop of the previous one."""
        calls: list[str] = []
        services = OrderedMultiService()
        recorders = [Recorder(name, calls) for name in "abc"]
        for recorder in recorders:
            services.addService(recorder)
        services.startService()
        stopped = services.stopService()
        self.assertEqual(calls, ["start a", "start b", "start c", "stop c"])
        recorders[2].stopped.callback(None)
        self.assertEqual(calls[4:], ["stop b"])
        recorders[1].stopped.callback(None)
        self.assertNoResult(stopped)
        recorders[0].stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(calls[4:], ["stop b", "stop a"])

    def test_failure_to_start_ends_the_program(self) -> None:
        """A service that cannot start ends the program with a log line and status 1."""
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        services = OrderedMultiService()
        services.addService(Broken("a", []))
        with self.assertRaises(SystemExit) as caught:
            services.startService()
        self.assertEqual(caught.exception.code, 1)
        self.assertEqual([str(event["error"]) for event in observer if "error" in event], ["cannot listen"])

    def test_failure_to_stop_is_logged(self) -> None:
        """If a service fails to stop, the failure is logged, and the others stop."""
        calls: list[str] = []
        services = OrderedMultiService()
        first = Recorder("a", calls)
        first.stopped.callback(None)
        services.addService(first)
        services.addService(Broken("b", calls))
        self.successResultOf(services.stopService())
        self.assertEqual(calls, ["stop a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DrainTests(SynchronousTestCase):
    """Drain."""

    def test_drain_stops_when_the_server_is_drained(self) -> None:
        """A Drain has stopped when its server is drained."""
        drained: Deferred[None] = Deferred()
        self.assertIs(Drain(lambda: drained).stopService(), drained)
