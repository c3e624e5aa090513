"""What is written of the log, set while the program runs."""

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
    """Lets levels of the log be set while the program runs; what they hide is not written, but still counted."""

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self.predicate = LogLevelFilterPredicate(LogLevel.info)
        self.said: dict[str, str] = {}
        """The levels that were set, by namespace."""
        self._publisher = publisher
        self._wrapped: list[tuple[ILogObserver, ILogObserver]] = []

    def startService(self) -> None:
        """Stand before what twistd writes its log with."""
        super().startService()
        # The log's trace is the public way to ask who writes it. LastHour and its like are left as they are.
        trace: list[tuple[object, ILogObserver]] = []
        Logger(observer=self._publisher).info("The levels of the log can be set", log_trace=trace)
        for publisher, observer in trace:
            if publisher is self._publisher and isinstance(observer, FileLogObserver | LegacyLogObserverWrapper):
                filtering = FilteringLogObserver(observer, [cast(Any, self.predicate)])
                self._wrapped.append((observer, filtering))
                self._publisher.removeObserver(observer)
                self._publisher.addObserver(filtering)

    def stopService(self) -> None:
        """Leave the log as it was."""
        super().stopService()
        for observer, filtering in self._wrapped:
            self._publisher.removeObserver(filtering)
            self._publisher.addObserver(observer)
        self._wrapped.clear()

    def set(self, namespace: str, level: str) -> None:
        """Write what is of this level or above of a namespace and all below it. Raises InvalidLogLevelError."""
        self.predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))
        self.said[namespace] = level
