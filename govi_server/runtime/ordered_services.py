"""Services that start and stop in order; if one cannot start, the program logs one line and exits with status 1."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server.errors import StartupError


class _Exit(SystemExit, Exception):
    """Ends the program with status 1 and no traceback.

    It is also an Exception, since a daemonized twistd reports exceptions to the process that waits for its startup.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # a text would repeat the log line on stderr


class OrderedMultiService(MultiService):
    """Starts its services in order, and stops them in reverse order, each after the previous one has stopped.

    MultiService stops all of them at the same time, which would close the statistics log before the last requests are
    logged. If a service raises StartupError, the program logs one line and exits with status 1.
    """

    log = Logger()

    def privilegedStartService(self) -> None:
        """Start the parts of the services that need privileges."""
        self._start_or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """Start the services."""
        self._start_or_exit(super().startService)

    def _start_or_exit(self, start: Callable[[], None]) -> None:
        try:
            start()
        except StartupError as error:
            self.log.critical("{error}", error=error)
            raise _Exit(str(error)) from None

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop the services in reverse order; return a Deferred that fires afterwards."""
        self.running = False
        for service in reversed(self.services):
            try:
                yield maybeDeferred(IService(service).stopService)
            except Exception:
                self.log.failure("{service}: stopping failed", service=service)


class Drain(Service):
    """Drains a server when stopped; precedes the listeners in an OrderedMultiService, so that they stop first."""

    def __init__(self, drain: Callable[[], Deferred[None]]) -> None:
        self._drain = drain

    def stopService(self) -> Deferred[None]:
        """Drain; return a Deferred that fires when the connections are closed."""
        super().stopService()
        return self._drain()


class Observers(Service):
    """Adds observers to the log, or to another publisher, while it runs."""

    def __init__(
        self, observers: Sequence[Callable[[LogEvent], None]], publisher: LogPublisher = globalLogPublisher
    ) -> None:
        self._publisher = publisher
        self._observers = [cast(ILogObserver, observer) for observer in observers]

    def startService(self) -> None:
        """Add the observers."""
        super().startService()
        for observer in self._observers:
            self._publisher.addObserver(observer)

    def stopService(self) -> None:
        """Remove the observers."""
        super().stopService()
        for observer in self._observers:
            self._publisher.removeObserver(observer)
