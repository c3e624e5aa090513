"""The root of the services that twistd runs: its log, and the signals that concern log files."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, Protocol, cast

from twisted.application.service import IService, IServiceCollection
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from zope.interface import Interface

from govi_server.errors import StartupError
from govi_server.runtime.log_file import LogFile
from govi_server.runtime.log_format import make_observer
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.runtime.service_manager import ServiceManager


class ReopenableLog(Protocol):
    """A log that is written to a file."""

    def reopen(self) -> None:
        """Close the file and open the one that has its name now. Raises OSError."""


def open_log_file(options: Mapping[str, Any] | None) -> LogFile | None:
    """Return the log file that options of twistd select; None if it logs elsewhere. Raises StartupError.

    twistd's own class does not append, so that a file that logrotate truncates would begin with NUL bytes.
    """
    if options is None or options.get("syslog") or options.get("logger"):
        return None
    path = options["logfile"]
    if path == "-" or (options["nodaemon"] and not path):
        return None
    path = os.path.abspath(path or "twistd.log")
    try:
        return LogFile(path)
    except (OSError, ValueError) as error:
        raise StartupError(f"--logfile: cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


class IReloadable(Interface):
    """A service that can reload something on SIGHUP."""

    def reload() -> None:
        """Reload it, and log the result."""


class Program(OrderedMultiService):
    """The root of a program's services, which logs to a file, by default to stdout.

    SIGHUP reopens the files of its logs, and reloads what its services can reload. SIGUSR1 rotates the file, as it
    does with twistd's own class. log_format: see log_format.make_observer().
    """

    log = Logger()

    def __init__(self, reactor: Any, log_file: LogFile | None = None, log_format: str = "auto") -> None:
        super().__init__()
        self._reactor = reactor
        self._log_file = log_file
        self._log_format = log_format
        self.manager = ServiceManager(reactor)
        self._handlers: dict[signal.Signals, Any] = {}
        self.logs: list[ReopenableLog] = [] if log_file is None else [log_file]
        """The logs that SIGHUP reopens."""

    def setServiceParent(self, parent: Any) -> None:
        """Attach to the application, before twistd starts its log."""
        super().setServiceParent(parent)
        observer = make_observer(self._log_format, cast(Any, self._log_file))
        if observer is not None:
            cast(Componentized, parent).setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """Handle the signals, and start the services."""
        self._handle(signal.SIGHUP)
        if self._log_file is not None:
            self._handle(signal.SIGUSR1)
        super().startService()
        self.manager.startService()

    def stopService(self) -> Deferred[None]:
        """Stop the services; return a Deferred that fires afterwards."""
        self.manager.stopService()
        return super().stopService().addCallback(self._restore_handlers)

    def _handle(self, number: signal.Signals) -> None:
        self._handlers[number] = signal.signal(number, self._received)

    def _restore_handlers(self, _: None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload if number == signal.SIGHUP else self._rotate)

    def reload(self) -> None:
        """Reopen the files of the logs, and reload what the services can reload."""
        self.manager.reloading()
        reopened = [self._reopen(log) for log in self.logs]
        if all(reopened):
            self.log.info("Log files reopened (SIGHUP)")
        for service in _services(self):
            if IReloadable.providedBy(service):
                try:
                    IReloadable(service).reload()
                except Exception:
                    self.log.failure("{service}: reloading failed", service=service)
        self.manager.ready()

    def _reopen(self, log: ReopenableLog) -> bool:
        """Reopen the file of a log, or log why it cannot be reopened; return whether it was."""
        try:
            log.reopen()
        except OSError as error:
            self.log.error("Log file cannot be reopened: {error}", error=str(error))
            return False
        return True

    def _rotate(self) -> None:
        assert self._log_file is not None
        try:
            self._log_file.rotate()
        except OSError as error:
            self.log.error("Log file cannot be rotated: {error}", error=str(error))


def _services(services: Iterable[IService]) -> Iterator[IService]:
    """Yield services and all those in them."""
    for service in services:
        yield service
        if IServiceCollection.providedBy(service):
            yield from _services(IServiceCollection(service))
