"""The rules of the live feed's departures: every document shows what the model has, in whatever form."""

from __future__ import annotations

import re
from bisect import bisect_left
from math import floor
from operator import itemgetter
from typing import Any

from tests.simulation import documents
from tests.simulation.documents import HORIZONS, Document, Shown
from tests.simulation.feed import (
    CYCLE,
    DESTINATIONS,
    GTFS_DESTINATIONS,
    GTFS_LINE,
    LINES,
    NAMES,
    ROUTES,
    SNAPSHOT_SECONDS,
    STALE,
    Row,
    moments,
)
from tests.simulation.oracles import Oracle
from tests.simulation.users import Exchange

SETTLED = 1.5
"""Seconds after which a change is in every response."""
STORED = 10.0
"""Seconds for which a response may be stored."""
FRESH = 60.0
SLOWEST = 240.0
"""Seconds after which an operator is stale, however long its interval seemed while messages were lost."""
MISSED = 13, 20
"""Repetitions of its line without a row, after which it is no longer reliable: while the feed is well, and otherwise.
The program waits for five or six intervals, which seem twice as long for minutes after a loss of messages."""
REPEATED = 36.0
"""Seconds in which a row is repeated while the feed is well."""
MARGIN = 60.0
"""Seconds around the horizon and the present in which a departure may be shown, or not."""


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Return whether two written times may mean the same moment."""
    return bool({*first} & {*second})


class FeedOracle(Oracle):
    """Compares documents with the model."""

    def is_relevant(self) -> bool:
        world = self.world
        if world.feed is None or world.steps or world.is_tight or self.now < world.model.unsettled_until:
            return False
        return not world.skips_an_hour(self.now)

    def check(self, what: str, document: Document, horizon: float | None, settled: float) -> None:
        """Compare a document of a stop. horizon: for which it must be complete, None if it need not be."""
        model, code, now = self.world.model, document.code, self.now
        if now - model.changed.get(code, -1e9) < settled:
            return
        keys: set[Any] = set()
        places = []
        is_named = model.is_named(now)
        for shown in document.shown:
            if "/journey/" in what and now > shown.target[1]:
                continue  # of what has passed the process may have forgotten all but the timetable
            rows = self.rows_of(shown)
            new = [row for row in rows if row.code == code and row.key not in keys]
            row = next((row for row in new if self.agrees(shown, row, is_named, settled)), None)
            planned = self.planned_keys(code, shown, keys)
            if row is None and any(row.code != code and model.may_be_lost(row.key) for row in rows):
                continue  # an older one is shown, of another stop
            if row is None and (not new or (planned and not shown.is_live)):
                self.check_planned(what, code, shown, rows, planned, is_named, settled)
                keys.update(planned[:1])
                if planned and not self.is_called(shown, planned[0][2], is_named):
                    self.found(f"{what}: has {shown}, of line {planned[0][2]}")
                if not any(model.may_be_lost(row.key) for row in rows):  # an older one has another expected time
                    places.append(shown.target[0])
                continue
            row = row or new[0]
            keys.add(row.key)
            if model.may_be_lost(row.key):
                continue
            places.append(moments(row.day, row.expected)[0])
            heard, silence = now - model.heard[row.key], now - model.operators[row.owner]
            # It is hidden a minute later, in responses that may be stored for ten seconds.
            if now > moments(row.day, row.expected)[1] + MARGIN + STORED + settled and not document.is_by_journey:
                self.found(f"{what}: still has {shown}, though it has left: {row}")
            if not self.agrees(shown, row, is_named, settled):
                self.found(f"{what}: has {shown}, and the feed {row}, heard {heard:.1f} s ago")
            if silence > STALE + 2 + settled and (shown.is_live or "planned" not in shown.states):
                self.found(f"{what}: has {shown}, though {row.owner} is silent for {silence:.0f} s")
        if places != sorted(places) and not document.is_by_journey and not self.world.is_clock_change(now):
            self.found(f"{what}: is out of order: {document.shown}")
        if horizon is not None and not self.world.is_clock_change(now):
            if document.is_by_journey:
                journeys = {key[:4] for key in keys}
                keys.update(key for key in model.rows if key[:4] in journeys)
            self.check_complete(what, code, keys, horizon)
        if document.messages is not None and document.is_known:
            self.check_messages(what, code, document.messages, settled)
        if document.name is not None and is_named and document.name != f"Dorp, {NAMES[code]}":
            self.found(f"{what}: {code} is called {document.name!r}, and not {NAMES[code]!r}")

    def rows_of(self, shown: Shown) -> list[Row]:
        """Return the rows, at any stop, of which a departure may be: of its line and its planned time."""
        model = self.world.model
        keys = {key: None for moment in shown.target for key in model.by_time.get((shown.line[-2:], moment), ())}
        return [
            row
            for row in map(model.rows.__getitem__, keys)
            if shown.journey is None or (shown.journey == row.journey and shown.day == row.day)
        ]

    def agrees(self, shown: Shown, row: Row, is_named: bool, settled: float) -> bool:
        """Return whether what a document says of a row is true."""
        first, second = moments(row.day, row.expected)
        possible = (first, first) if self.now < first - settled else (first, second)  # in the repeated hour
        if shown.expected is not None and not overlap(shown.expected, possible):
            return False
        return bool(shown.states & self.states(row, settled)) and self.is_called(shown, row.line, is_named)

    def is_called(self, shown: Shown, line: str, is_named: bool) -> bool:
        """Return whether a departure has the names of its line: those of KV7, before it those of GTFS, or codes."""
        names, numbers = [DESTINATIONS[line]], [line[-2:]]
        if line == GTFS_LINE:
            names = [GTFS_DESTINATIONS[line]]
        elif not is_named:
            names += [GTFS_DESTINATIONS[line], f"D{line}", "unknown", ""]
            numbers.append(line)
        return shown.destination in (None, *names) and shown.public in (None, *numbers)

    def states(self, row: Row, settled: float) -> set[str]:
        """Return the states that a row may have now, or had so many seconds ago."""
        model, seconds = self.world.model, MISSED[0] * CYCLE + MARGIN
        is_well = self.world.feed_is_healthy(seconds) and self.now - self.world.node.started_at > seconds
        if row.status in ("CANCEL", "PASSED"):
            return {"cancelled"} if row.status == "CANCEL" else {"passed"}
        late = floor(row.expected / 60) - floor(row.target / 60)
        state = "on_time" if not late else "late" if late > 0 else "early"
        states = {"planned" if row.status == "PLANNED" else state}
        age, silence = self.now - model.heard[row.key], self.now - model.operators[row.owner]
        if age > REPEATED or silence > FRESH or age < settled:
            states |= {"unknown", "last_known"}
        if model.repeats[row.line] - model.heard_in[row.key] > MISSED[not is_well]:
            states -= {"on_time", "late", "early"}
        return states

    def planned_keys(self, code: str, shown: Shown, keys: set[Any]) -> list[Any]:
        """Return the keys of the planned departures that one may be. keys: of those that were shown before it."""
        model = self.world.model
        return [
            planned.key
            for moment in shown.target
            for planned in model.planned_at.get((code, shown.line[-2:], moment), ())
            if planned.key not in keys
            and (planned.key not in model.rows or model.may_be_lost(planned.key))
            and (shown.journey is None or (shown.journey, shown.day) == (planned.journey, planned.day))
        ]

    def check_planned(
        self, what: str, code: str, shown: Shown, rows: list[Row], planned: list[Any], is_named: bool, settled: float
    ) -> None:
        """A departure without a row is in a timetable, says so, and has no row elsewhere."""
        model = self.world.model
        if "planned" not in shown.states or shown.is_live:
            self.found(f"{what}: has {shown}, which the feed has not sent for {code}")
        for row in rows:
            # GTFS does not have the order of KV8: a row at a stop of its own line is taken for the call there.
            if row.code == code or (not is_named and row.code in ROUTES[row.line]):
                return
            if self.now - model.changed[row.code] > settled and not model.may_be_lost(row.key):
                self.found(f"{what}: has {shown} as planned, though it has moved: {row}")
        if not planned and not rows:
            self.found(f"{what}: has {shown}, which no timetable has for {code}")

    def check_complete(self, what: str, code: str, keys: set[Any], horizon: float) -> None:
        """All rows and planned departures of a stop are shown, except at the edges of what is shown."""
        model, now = self.world.model, self.now
        until = now + horizon - MARGIN
        for row in model.rows.values():
            first, last = moments(row.day, row.expected)
            if (
                row.code == code
                and row.key not in keys
                and row.kind != "LAST"
                and row.status != "PASSED"
                and now - 50 < first
                and last < until
                and not model.may_be_lost(row.key)
                and now - model.heard[row.key] < STALE - 30
                and now - model.operators[row.owner] < STALE - 30
            ):
                self.found(f"{what}: lacks {row}, heard {now - model.heard[row.key]:.1f} s ago")
                return
        departures = model.planned.get(code, [])
        begin = bisect_left(departures, now + MARGIN, key=itemgetter(0))
        for first, planned in departures[begin:]:
            if first >= until:
                return
            is_expected = not planned.is_last and planned.key not in keys and planned.key not in model.rows
            if is_expected and model.is_sure(planned, now) and moments(planned.day, planned.target)[1] < until:
                self.found(f"{what}: lacks {planned}")
                return

    def check_messages(self, what: str, code: str, numbers: set[str], settled: float) -> None:
        model = self.world.model
        current = {message.number for message in model.messages.values() if message.code == code}
        known = model.messages | model.gone_messages
        unsure = {
            number
            for number in numbers | current
            if known[number].at < model.killed_at or abs(self.now - known[number].ends) < max(settled, STORED) + 1
        }
        current = {number for number in current if known[number].ends > self.now}
        numbers, current = numbers - unsure, current - unsure
        if numbers != current:
            self.found(f"{what}: has messages {sorted(numbers)}, and the feed {sorted(current)}")


class LiveDocuments(FeedOracle):
    """The documents of the feed show the departures and the messages of the model, all of them and nothing else."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.module not in (*HORIZONS, "line", "journey") or not self.is_relevant():
            return
        if exchange.method != "GET" or self.world.model.first is None:
            return
        if exchange.status not in (200, 304):
            self.check_missing(exchange)
            return
        if exchange.module == "board" and exchange.fields.get("Accept") != "application/json":
            return
        horizon = None if "limit=" in exchange.path else HORIZONS.get(exchange.module)
        if exchange.module == "board" and exchange.status == 200:
            self.check_minutes(exchange)
        for document in documents.read(exchange.module, exchange.path, self.world.plain_body(exchange)):
            self.check(str(exchange), document, horizon, SETTLED)
            if "limit=3" in exchange.path and len(document.shown) > 3:
                self.found(f"{exchange}: has {len(document.shown)} departures")

    def check_minutes(self, exchange: Exchange) -> None:
        """The remaining minutes are not too many for as long as the response may be stored."""
        match = re.search(r"max-age=(\d+)", exchange.header("cache-control") or "")
        until = self.now + (int(match[1]) if match else 0) - SETTLED
        for document in documents.read(exchange.module, exchange.path, self.world.plain_body(exchange)):
            for shown in document.shown:
                last = max(shown.expected or shown.target)
                if shown.minutes and shown.minutes * 60 > last - until:
                    self.found(f"{exchange}: has {shown}, which leaves in {last - self.now:.0f} s")

    def check_missing(self, exchange: Exchange) -> None:
        """A stop is not refused while its departures are known."""
        code = exchange.path.partition("=")[2] if exchange.module == "siri" else exchange.stop
        is_settled = (
            self.now - self.world.node.started_at > 5
            and self.now - self.world.model.changed.get(code, -1e9) > SETTLED
        )
        if exchange.module in ("live", "tpc", "siri") and code in NAMES and is_settled:
            horizon = HORIZONS[exchange.module]
            self.check_complete(f"{exchange}: {exchange.status}", code, set(), horizon)


class FeedAges(FeedOracle):
    """A response with departures of an operator that is silent for long says so, with its age."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.module not in HORIZONS or exchange.status not in (200, 304) or not self.is_relevant():
            return
        if exchange.method != "GET" or exchange.module == "board":
            return
        model = self.world.model
        found = documents.read(exchange.module, exchange.path, self.world.plain_body(exchange))
        owners = {LINES[shown.line] for document in found for shown in document.shown if shown.is_live}
        oldest = max((self.now - model.operators[owner] for owner in owners), default=0.0)
        age = int(exchange.header("age") or 0)
        restored = [at - SNAPSHOT_SECONDS if at < model.killed_at else at for at in model.operators.values()]
        if oldest > SLOWEST and not oldest - 2 < age < self.now - min(restored) + 2:
            self.found(f"{exchange}: its Age is {age}, though its operators are silent for up to {oldest:.0f} s")


class Streams(FeedOracle):
    """The last event of a stream is as a board that is asked for now; a stream is never silent."""

    BEAT = 10.0
    DELAY = 14.0
    """Seconds in which a change must be in an event."""
    LIMIT = 20
    """Departures of a stream without the parameter limit, besides cancelled ones."""

    def tick(self) -> None:
        now, world = self.now, self.world
        if int(now) % 5 or (world.steps and now - world.steps[-1] < self.BEAT + 3):
            return
        for browser in world.browsers:
            session = browser.session
            if session is None or not session.is_streaming or not session.is_usable:
                continue
            if now - browser.last_data > self.BEAT + 3 and not session.wire.paused:
                self.found(f"{browser.name}: no event for {now - browser.last_data:.1f} s")
            is_settled = now - world.model.last < 50 and now - browser.opened_at > self.DELAY
            if browser.board and is_settled and self.is_relevant():
                for document in documents.board(browser.board):
                    horizon = HORIZONS["board"] if len(document.shown) < self.LIMIT else None
                    self.check(f"{browser.name} {browser.path}", document, horizon, self.DELAY)


class Feeds(FeedOracle):
    """A process receives the feed again soon after the feed is well, however it was lost."""

    DELAY = 150.0
    """A minute of silence, a pause before the next attempt, and a cycle of the feed."""

    def tick(self) -> None:
        world, now = self.world, self.now
        if world.feed is None or not world.node.is_up or world.steps or not now % 30 < 1:
            return
        if now - world.feed.published_at > 2 * CYCLE:
            return
        began = max(world.feed.healthy_since, world.feed.busy_since, world.node.started_at, world.begin)
        if now - began > self.DELAY and now - world.model.last > self.DELAY:
            self.found(f"nothing received for {now - world.model.last:.0f} s, though the feed is well")


FEED_ORACLES = (Feeds, LiveDocuments, FeedAges, Streams)
