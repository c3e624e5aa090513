"""The rules of connections and of the endpoint for operators, one class for each, checked all the time.

An oracle receives events through the methods of Oracle that it overrides, and reports what breaks its rule with
found(). None of them looks inside the program.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.simulation.gateway import BAD, Answer, Gateway, Question
from tests.simulation.users import LINGER_SECONDS, Exchange, Flooder, Operator

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SLACK = 0.5
"""Seconds for the network, which are not the program's."""
FEED_SECONDS = 90.0
"""Seconds without data and heartbeats after which the feed is down: a minute, and the time in which it is noticed."""


class Oracle:
    """A rule."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    def found(self, text: str) -> None:
        self.world.found(self.name, text)

    @property
    def now(self) -> float:
        return self.world.scheduler.now

    def sent(self, exchange: Exchange) -> None:
        """A user sends a request."""

    def completed(self, exchange: Exchange) -> None:
        """A user has received a complete response."""

    def abandoned(self, exchange: Exchange) -> None:
        """A connection has ended before its response."""

    def asked(self, gateway: Gateway, question: Question) -> None:
        """A gateway has received a question."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        """A gateway has received the response to a callback."""

    def tick(self) -> None:
        """A second has passed."""

    def quiet(self) -> None:
        """All users have been idle for so long that everything must be over."""

    def stopped(self, node: Node, clean: bool) -> None:
        """A process has ended: after SIGTERM, or killed."""

    def logged(self, event: Any) -> None:
        """An event of the log."""


class Deadlines(Oracle):
    """No client waits longer than 13 s: for a response, or for the end of an idle connection."""

    def tick(self) -> None:
        now = self.now
        for session in list(self.world.sessions):
            owed_at = session.owed_at
            slack = SLACK + self.world.disk.slack
            if owed_at is None or now <= owed_at + slack or session.wire.sock.got_eof:
                continue
            # A client that does not read sees the end of its connection when that is aborted.
            linger = LINGER_SECONDS if session.wire.paused else 0.0
            if now > owed_at + slack + linger + self.world.step_slack(owed_at - 13):
                self.found(f"{session.user.name} still waits for {session.owed}, {now - owed_at:.1f} s too long")
                session.close()


class Responses(Oracle):
    """A request has a response that it can have."""

    EXPECTED = (200, 304, 400, 404, 502, 503, 504)

    def completed(self, exchange: Exchange) -> None:
        status = exchange.status
        if status in self.EXPECTED or exchange.books.is_unclean:
            if status == 304 and not {"If-None-Match", "If-Modified-Since"} & exchange.fields.keys():
                self.found(f"{exchange}: 304 to an unconditional request")
            return
        if status == 406 and self.world.step_slack(exchange.sent_at):
            return
        if status == 429 and isinstance(exchange.user, Flooder):
            return
        if status == 421 and exchange.fields.get("Host") == "renamed.example":
            return
        self.found(f"{exchange}: {exchange.response.first_line if exchange.response else ''}")


class NoCuts(Oracle):
    """The server ends no connection before it has responded to a request, also when it stops."""

    def abandoned(self, exchange: Exchange) -> None:
        node = exchange.node
        # The endpoint of operators may close after such a connection has been established, and before it is accepted.
        is_too_late = isinstance(exchange.user, Operator) and exchange.sent_at > node.stopping_at > node.started_at
        excused = exchange.books.is_unclean or exchange.epoch in self.world.killed_epochs or is_too_late
        if exchange.was_cut and not excused and not self.world.step_slack(exchange.sent_at):
            later = self.now - exchange.sent_at
            self.found(f"{exchange}: the connection ended without a response, {later:.1f} s later")


class Health(Oracle):
    """/ready is "ready" while boards are served, and not for longer than 20 s while none can be.

    A node that has lost the engine since it asked does not get an answer that another node has put there.
    """

    DELAY = 20.0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.heard_at = self.now
        """When the feed last sent anything, heartbeats included."""

    def tick(self) -> None:
        feed = self.world.feed
        if feed is None or (feed.publisher is not None and ("silent" not in feed.faults or "repeats" in feed.faults)):
            self.heard_at = self.now

    def completed(self, exchange: Exchange) -> None:
        if exchange.path != "/ready" or not isinstance(exchange.user, Operator):
            return
        world, now, node = self.world, self.now, exchange.node
        if node.is_stopping and exchange.sent_at > node.stopping_at + SLACK and exchange.status == 200:
            self.found(f"/ready is 200, {exchange.sent_at - node.stopping_at:.1f} s after SIGTERM")
        if not node.is_up or now - node.started_at < 60 or world.step_slack(now - 100):
            return
        bad = [gateway for gateway in world.gateways.values() if gateway.mode in BAD]
        silence = now - max(self.heard_at, node.started_at)
        if exchange.status == 200 and silence > FEED_SECONDS:
            self.found(f"/ready is 200, though nothing of the feed was received for {silence:.0f} s")
        if exchange.status == 200:
            for gateway in bad:
                is_known = node in gateway.was_asked or gateway.mode == "closed"
                if is_known and now - gateway.bad_since > 2 * self.DELAY and gateway.n_questions:
                    self.found(f"/ready is 200, though {gateway.module} fails for {now - gateway.bad_since:.0f} s")
            return
        engines = world.engines
        if engines is not None and not engines.is_steady():
            return
        if all(now - gateway.healthy_since > 60 for gateway in world.gateways.values()) and world.feed_is_healthy(90):
            self.found(f"/ready is {exchange.status}, though all is well for a minute: {exchange.response.body!r}")  # type: ignore[union-attr]


class Bounds(Oracle):
    """What is bounded stays within its bound, as operators see it; its bytes are in proportion to its number."""

    SIZES = (("live passing times", "memory of these", 450, 650), (": boards", ": memory of boards", 500, 12_000))
    """The ends of the names of a number and of its bytes, and the fewest and the most bytes of each."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.path != "/status.json" or not isinstance(exchange.user, Operator) or exchange.status != 200:
            return
        usages = json.loads(self.world.plain_body(exchange))["limits"]
        for usage in usages:
            if usage["limit"] is not None and usage["used"] > usage["limit"]:
                self.found(f"{usage['name']}: {usage['used']}, though {usage['setting']} is {usage['limit']}")
        used = {usage["name"]: usage["used"] for usage in usages}
        if not self.world.is_tight:
            self.check_sizes(used)
        self.check_messages(used, exchange.node)

    def check_sizes(self, used: dict[str, int]) -> None:
        for name, n in used.items():
            for number, memory, fewest, most in self.SIZES:
                if name.endswith(number) and not fewest * n <= used[name.replace(number, memory)] <= most * n:
                    self.found(f"{name}: {n}, with {used[name.replace(number, memory)]} bytes")

    def check_messages(self, used: dict[str, int], node: Node) -> None:
        messages = self.world.model.messages.values()
        current = [item for item in messages if item.at > node.started_at + 30 and item.ends > self.now + SLACK]
        if len(current) > 4 and not used["general messages"] and not self.world.steps:
            self.found(f"none of {len(current)} messages is stored")


class Timetables(Oracle):
    """A GTFS file is used soon after its server is well, although the first attempts have failed."""

    RETRY = 700.0
    """The pause after the second attempt, and the time for the file."""
    LOST = ("missing", "truncated", "silent", "reset")
    """Modes after which the same file may be had; others are refused for long."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.lost_at = self.now
        self.is_excused = False

    def tick(self) -> None:
        gtfs, world = self.world.gtfs, self.world
        if gtfs is None or world.steps or self.is_excused:
            return
        if any(source == "gtfs" for source, _ in world.model.timetables) or gtfs.mode not in ("", *self.LOST):
            self.is_excused = True
        elif gtfs.mode or not world.node.is_up or world.disk.is_full:
            self.lost_at = self.now
        elif self.now - self.lost_at > self.RETRY:
            self.found(f"no GTFS file is used, {self.now - self.lost_at:.0f} s after its server was well")


class NoErrors(Oracle):
    """Nothing is logged as an error."""

    def logged(self, event: Any) -> None:
        from twisted.logger import LogLevel, formatEvent

        level = event.get("log_level")
        if level in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            text = formatEvent(event)
            if self.world.disk.is_full and text.endswith("lost at the end"):
                return
            self.found(f"logged: {text}" + (f"\n{failure.getTraceback()}" if failure is not None else ""))


ORACLES = (Deadlines, Responses, NoCuts, Health, Bounds, Timetables, NoErrors)
