"""How the parts of the program start and end: in order, with one clear line when one of them cannot."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server.errors import StartupError


class _Exit(SystemExit, Exception):
    """Ends the program with status 1 and no traceback.

    It is an Exception, too, so that a twistd that runs as a daemon tells the one that waits for it to start.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # or Python would write the text to stderr, where it is already, from the log


class OrderedMultiService(MultiService):
    """Starts its services in their order and stops them in the reverse one, each when the next has stopped.

    MultiService stops all at once, which would close the statistics log before the last answers are in it. A service
    that cannot start ends the program: one line in the log, exit status 1.
    """

    log = Logger()

    def privilegedStartService(self) -> None:
        """Let the services open what needs privileges."""
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
        """Stop the services, the last first."""
        self.running = False
        for service in reversed(self.services):
            try:
                yield maybeDeferred(IService(service).stopService)
            except Exception:
                self.log.failure("{service} did not stop", service=service)


class Drain(Service):
    """Stops when a server's connections have been answered and closed: goes before its listeners in an InOrder."""

    def __init__(self, drain: Callable[[], Deferred[None]]) -> None:
        self._drain = drain

    def stopService(self) -> Deferred[None]:
        """Wait for the connections."""
        super().stopService()
        return self._drain()


class Observers(Service):
    """Has observers see the log, or what else is published, while it runs."""

    def __init__(
        self, observers: Sequence[Callable[[LogEvent], None]], publisher: LogPublisher = globalLogPublisher
    ) -> None:
        self._publisher = publisher
        self._observers = [cast(ILogObserver, observer) for observer in observers]

    def startService(self) -> None:
        """Begin to observe."""
        super().startService()
        for observer in self._observers:
            self._publisher.addObserver(observer)

    def stopService(self) -> None:
        """Observe no more."""
        super().stopService()
        for observer in self._observers:
            self._publisher.removeObserver(observer)
