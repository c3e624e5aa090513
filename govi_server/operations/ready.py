"""Readiness: whether a question would be answered now, found out by asking one."""

from twisted.internet.defer import Deferred

from govi_server.departures.board import NoBoard
from govi_server.operations.parts import GatewayParts, Parts


class Ready:
    """Asks each source for a board, the way that a request does.

    probe: the TimingPointCode to ask for; "" is the one that was asked for last.
    """

    def __init__(self, parts: Parts, probe: str) -> None:
        self._parts = parts
        self._probe = probe

    async def why_not(self) -> list[str]:
        """List why questions would not be answered; nothing if they would, by every module."""
        why = []
        if self._parts.server.draining:
            why.append("the server stops")
        for name, source in self._parts.gateways.items():
            reason = await self._ask(source)
            if reason:
                why.append(f"/{name}: {reason}")
        feed = self._parts.feed
        if feed is not None and feed.subscriber is not None and feed.state not in ("UP", "RECOVERING"):
            why.append(f"the live feed is {feed.state}")
        elif feed is not None and not feed.timetable.timing_points and not feed.passtimes.stops:
            why.append("no stop is known yet")
        return why

    async def _ask(self, source: GatewayParts) -> str:
        code = self._probe or source.cache.last_asked
        if not code:  # nobody has asked for anything, and a made-up stop would say nothing
            return "" if source.breaker.state == "closed" else "the gateway does not take questions"
        try:
            _, found = source.cache.board(code)
            if isinstance(found, Deferred):
                await found
        except NoBoard as error:
            return f"stop {code}: {error}"
        return ""
