"""Whether boards are shared, for the log and for operators."""

from collections import Counter
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from govi_server.runtime.outage import Outage
from govi_server.runtime.throttled_warnings import ThrottledWarnings

ShareResult = Literal["shared", "waited", "asked", "alone"]
"""Where the result of a request came from: a board that the engine had; another node's gateway request; this node's
own one; this node's own one without the engine."""


MAX_LOGGED = 5
"""Outages that are logged in a minute: an engine that is restarted twice has two, one that often hangs has many."""


class SharingStatus:
    """The state of the engine, and the number of boards by origin. A change of the state is one log line."""

    log = Logger()

    def __init__(self, clock: IReactorTime, description: str) -> None:
        self.description = description
        """The engine's addresses, without a password."""
        self._clock = clock
        self._outage = Outage(self.log, clock, MAX_LOGGED)
        self.incidents = ThrottledWarnings(self.log, clock)
        self.is_sharing = False
        self.since = clock.seconds()
        """Start of the current state, or of the program (epoch seconds)."""
        self.reason = "connecting"
        """Why boards are not shared; "" while they are."""
        self.engine = ""
        """The name and version of the engine with its address; "" before the first connection."""
        self.results: Counter[tuple[str, ShareResult]] = Counter()
        """The results by module."""

    def connected(self, engine: str) -> None:
        """Note that the engine can be used. engine: its name, version and address."""
        is_first = not self.engine
        self.engine = engine
        if is_first and self._outage.since is None:
            self.log.info("Engine {engine}: connected, boards are shared", engine=engine)
        self.recovered()

    def recovered(self) -> None:
        """Note that the engine accepts commands."""
        if not self.is_sharing:
            self.is_sharing, self.since, self.reason = True, self._clock.seconds(), ""
            self._outage.end("Engine {engine}: available again after {seconds} s", engine=self.engine)

    def unavailable(self, reason: str) -> None:
        """Note that the engine cannot be used."""
        if self.is_sharing or self._outage.since is None:
            self.is_sharing, self.since = False, self._clock.seconds()
        text = "Engine {engine}: unavailable, continuing without shared boards ({reason})"
        self._outage.begin(text, engine=self.description, reason=reason)
        self.reason = reason

    def unreadable(self, code: str, reason: str) -> None:
        """Count and log a value of the engine that is not a board."""
        text = "Engine {engine}: board of stop {code} ignored ({reason})"
        self.incidents.add("unreadable", text, engine=self.description, code=code, reason=reason)
