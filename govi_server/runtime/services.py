"""Services that start and stop in order, with one log line and exit status 1 if one cannot start."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server.errors import StartupError


class _Exit(SystemExit, Exception):
    """Ends the program with status 1 and no traceback.

    It is an Exception, too: a daemonized twistd reports those to the process that waits for its start.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # a text would be written to stderr, where the log line is already


class OrderedMultiService(MultiService):
    """Starts its services in order, and stops them in reverse order, each after the next one has stopped.

    MultiService stops all at once, which would close the statistics log before the last requests are in it. A service
    that raises StartupError ends the program: one log line, exit status 1.
    """

    log = Logger()

    def privilegedStartService(self) -> None:
        """Start what needs privileges."""
        self._or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """Start the services."""
        self._or_exit(super().startService)

    def _or_exit(self, start: Callable[[], None]) -> None:
        try:
            start()
        except StartupError as error:
            self.log.critical("{error}", error=error)
            raise _Exit(str(error)) from None

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop the services, the last one first."""
        self.running = False
        for service in reversed(self.services):
            try:
                yield maybeDeferred(IService(service).stopService)
            except Exception:
                self.log.failure("{service}: stopping failed", service=service)


class Drain(Service):
    """Stops when a server's connections are closed; it precedes its listeners in an OrderedMultiService."""

    def __init__(self, drain: Callable[[], Deferred[None]]) -> None:
        self._drain = drain

    def stopService(self) -> Deferred[None]:
        """Wait for the connections."""
        super().stopService()
        return self._drain()


class Observers(Service):
    """Adds observers to the log, or another publisher, while it runs."""

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
