"""Log levels that can be changed while the program runs."""

from collections.abc import Sequence
from typing import Any, cast

from twisted.application.service import Service
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    globalLogPublisher,
)


class LogLevels(Service):
    """Filters the log by namespace and level. The metrics still count events that are not written.

    configured: levels of the configuration, such as govi_server.kv55=debug.
    """

    def __init__(self, configured: Sequence[str] = (), publisher: LogPublisher = globalLogPublisher) -> None:
        self.predicate = LogLevelFilterPredicate(LogLevel.info)
        self.levels: dict[str, str] = {}
        """The levels that were set while the program runs, by namespace; they win over those of the configuration."""
        self.configure(configured)
        self._publisher = publisher
        self._wrapped: list[tuple[ILogObserver, ILogObserver]] = []

    def startService(self) -> None:
        """Add a filter to each observer with which twistd writes its log."""
        super().startService()
        # A trace is the public way to list the observers of a publisher. Only those that write a log are filtered.
        trace: list[tuple[object, ILogObserver]] = []
        Logger(observer=self._publisher).info("Log levels: {levels}", levels=self._levels(), log_trace=trace)
        for publisher, observer in trace:
            if publisher is self._publisher and isinstance(observer, FileLogObserver | LegacyLogObserverWrapper):
                filtering = FilteringLogObserver(observer, [cast(Any, self.predicate)])
                self._wrapped.append((observer, filtering))
                self._publisher.removeObserver(observer)
                self._publisher.addObserver(filtering)

    def stopService(self) -> None:
        """Remove the filters."""
        super().stopService()
        for observer, filtering in self._wrapped:
            self._publisher.removeObserver(filtering)
            self._publisher.addObserver(observer)
        self._wrapped.clear()

    def configure(self, levels: Sequence[str]) -> None:
        """Replace the levels of the configuration."""
        self.configured = dict(level.split("=") for level in levels)
        self.predicate.clearLogLevels()
        for namespace, level in {**self.configured, **self.levels}.items():
            self.predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))

    def _levels(self) -> str:
        levels = {"": "info", **self.configured}
        return ", ".join(f"{namespace} {level}".strip() for namespace, level in levels.items())

    def set(self, namespace: str, level: str) -> None:
        """Set the lowest level that is written for a namespace and those in it. Raises InvalidLogLevelError."""
        self.predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))
        self.levels[namespace] = level
