"""The rules of the live feed's departures."""

from __future__ import annotations

import json
import re
from datetime import datetime
from math import floor
from typing import Any
from xml.etree import ElementTree

from tests.simulation.feed import LINES, Model, Row, moments
from tests.simulation.oracles import Oracle
from tests.simulation.users import Exchange

SETTLED = 1.5
"""Seconds after which a change is in every response."""
FRESH, STALE = 60.0, 300.0
HORIZON = 7200.0
REPEATED = 36.0
"""Seconds in which a row is repeated while the feed is well."""
NO_ROWS = ("PASSED",)


class FeedOracle(Oracle):
    """Shared by the rules of the feed: what the model says of a stop."""

    def is_relevant(self) -> bool:
        world = self.world
        is_settled = self.now > world.model.unsettled_until
        return world.feed is not None and is_settled and not world.steps and not world.is_clock_change(self.now)

    def live_rows(self, code: str) -> list[Row]:
        return [row for row in self.world.model.rows.values() if row.code == code]

    def mandatory(self, code: str, now: float) -> list[Row]:
        """Return the rows that a board must have: the same for a while, fresh, and well within its horizon."""
        model = self.world.model
        changed = model.changed.get(code, -1e9)
        if now - changed < SETTLED:
            return []
        return [
            row
            for row in self.live_rows(code)
            if row.kind != "LAST"
            and row.status not in NO_ROWS
            and now - 50 < moments(row.day, row.expected)[0]
            and moments(row.day, row.expected)[1] < now + HORIZON - 1500
            and now - model.heard[row.key] < STALE - 30
            and now - model.operators[row.owner] < STALE - 30
        ]

    def candidates(self, key: Any, now: float) -> list[Row]:
        """Return the rows with which a served passtime may agree."""
        model = self.world.model
        found = []
        if row := model.rows.get(key):
            found.append(row)
        before = model.previous.get(key)
        if before is not None and now - before[1] < SETTLED:
            found.append(before[0])
        return found


class LiveDocuments(FeedOracle):
    """A DRIS_55 of the feed has exactly the departures of the model, and nothing else."""

    def completed(self, exchange: Exchange) -> None:
        if (
            exchange.module != "live"
            or not exchange.stop.isdecimal()
            or exchange.method != "GET"
            or not self.is_relevant()
        ):
            return
        now, code = self.now, exchange.stop
        required = {row.key: row for row in self.mandatory(code, now)}
        if exchange.status == 304:
            return
        if exchange.status != 200:
            if required and now - self.world.node.started_at > 5:
                self.found(f"{exchange}: {exchange.status}, though {len(required)} departures are known")
            return
        assert exchange.response is not None
        root = ElementTree.fromstring(self.world.plain_body(exchange))
        for trip in root.iter("Trip"):
            texts = {element.tag: element.text or "" for element in trip}
            self.check(exchange, texts, required, now)
        if required:
            row = next(iter(required.values()))
            self.found(f"{exchange}: lacks {row}, heard {now - self.world.model.heard[row.key]:.1f} s ago")

    def check(self, exchange: Exchange, texts: dict[str, str], required: dict[Any, Row], now: float) -> None:
        model: Model = self.world.model
        line, number = texts["LinePlanningNumber"], int(texts["JourneyNumber"])
        day = datetime.fromisoformat(texts["OperatingDate"]).date()
        target = seconds(texts["TargetDepartureTime"])
        orders = [
            key
            for order in range(4)
            for key in ((LINES[line], day, line, number, order),)
            for row in self.candidates(key, now)
            if row.code == exchange.stop and row.target == target
        ]
        if not orders:
            is_planned = texts["TripStopStatus"] == "PLANNED"
            if not is_planned:
                sent = [row for key, row in model.rows.items() if key[:4] == (LINES[line], day, line, number)]
                self.found(f"{exchange}: has {texts}, which the feed has not sent for this stop: {sent}")
            elif any(
                (row := model.rows.get((LINES[line], day, line, number, order))) is not None
                and row.target == target
                and row.code != exchange.stop
                and now - model.changed.get(row.code, 0) > SETTLED
                for order in range(4)
            ):
                self.found(f"{exchange}: has {texts} as planned, though it has moved to another stop")
            return
        key = orders[0]
        required.pop(key, None)
        rows = self.candidates(key, now)
        expected, status = seconds(texts["ExpectedDepartureTime"]), texts["TripStopStatus"]
        is_silent = now - model.heard[key] > REPEATED or now - model.operators[key[0]] > FRESH
        for row in rows:
            if expected == row.expected and (status == row.status or (status == "UNKNOWN" and is_silent)):
                break
        else:
            self.found(f"{exchange}: has {texts}, and the feed {rows}")
        if now - model.operators[key[0]] > STALE + 2 and status != "PLANNED":
            self.found(
                f"{exchange}: has {texts}, though {key[0]} is silent for {now - model.operators[key[0]]:.0f} s"
            )


class Boards(FeedOracle):
    """The board as JSON agrees with the model: never "on time" without a live row, and with all messages."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.module == "board" and exchange.method == "GET" and exchange.status == 200:
            is_json = (exchange.header("content-type") or "").startswith("application/json")
            if is_json and self.is_relevant() and self.world.model.first is not None:
                self.check(str(exchange), self.world.plain_body(exchange), exchange.sent_at, self.now, SETTLED)

    def check(self, what: str, data: bytes, made: float, now: float, settled: float) -> None:
        model = self.world.model
        for stop in json.loads(data)["stops"]:
            code = stop["code"]
            if now - model.changed.get(code, -1e9) < settled:
                continue
            by_time: dict[tuple[str, float], list[Row]] = {}
            for row in self.live_rows(code):
                for moment in moments(row.day, row.target):
                    by_time.setdefault((row.line, moment), []).append(row)
            shown: set[Any] = set()
            for departure in stop["departures"]:
                planned = datetime.fromisoformat(departure["planned"]).timestamp()
                line = next((name for name in LINES if departure["line"] in (name, name[-2:])), departure["line"])
                rows = by_time.get((line, planned), [])
                shown.update(row.key for row in rows)
                self.check_departure(what, departure, rows, now)
            for row in self.mandatory(code, now):
                if row.key not in shown and moments(row.day, row.expected)[0] > now + 5:
                    self.found(f"{what}: lacks {row}, heard {now - model.heard[row.key]:.1f} s ago")
                    return
            if stop["state"] not in ("unknown", "down"):
                self.check_messages(what, stop, now)

    def check_departure(self, what: str, departure: dict[str, Any], rows: list[Row], now: float) -> None:
        model, state = self.world.model, departure["state"]
        if not rows:
            if state != "planned":
                self.found(f"{what}: has {departure}, which the feed has not sent")
            return
        row = rows[0]
        heard = now - model.heard[row.key]
        if state in ("on_time", "late", "early", "stopped") and (
            now - model.operators[row.owner] > STALE + 15
            or (heard > STALE + 15 and self.world.feed_is_healthy(120))  # outages are no part of the age of a row
        ):
            self.found(f"{what}: has {departure}, though the feed has not sent it for {heard:.0f} s")
        if (state == "cancelled") != (row.status == "CANCEL"):
            self.found(f"{what}: has {departure}, and the feed {row}")
        if state in ("on_time", "late", "early"):
            delay = floor(row.expected / 60) - floor(row.target / 60)
            right = "on_time" if delay == 0 else "late" if delay > 0 else "early"
            if state != right:
                self.found(f"{what}: has {departure}, and the feed {row}")
            expected = datetime.fromisoformat(departure["expected"]).timestamp()
            if expected not in moments(row.day, row.expected):
                self.found(f"{what}: has {departure}, and the feed {row}")

    def check_messages(self, what: str, stop: dict[str, Any], now: float) -> None:
        model = self.world.model
        numbers = {match[1] for text in stop["messages"] if (match := re.search(r"nr\. (\d+)", text))}
        current = {message.number for message in model.messages.values() if message.code == stop["code"]}
        known = model.messages | model.gone_messages
        unsure = {number for number in numbers | current if known[number].at < model.killed_at}
        numbers, current = numbers - unsure, current - unsure
        if numbers != current:
            self.found(f"{what}: has messages {sorted(numbers)}, and the feed {sorted(current)}")


class Streams(Boards):
    """The last event of a stream is as a board that is asked for now; a stream is never silent."""

    BEAT = 10.0
    DELAY = 14.0
    """Seconds in which a change must be in an event."""

    def completed(self, exchange: Exchange) -> None:
        pass

    def tick(self) -> None:
        now, world = self.now, self.world
        if int(now) % 5 or world.steps:
            return
        for browser in world.browsers:
            session = browser.session
            if session is None or not session.is_streaming or not session.is_usable:
                continue
            if now - browser.last_data > self.BEAT + 3 and not session.wire.paused:
                self.found(f"{browser.name}: no event for {now - browser.last_data:.1f} s")
            is_settled = now - world.model.last < 50 and now - browser.opened_at > self.DELAY
            if browser.board and is_settled and self.is_relevant():
                self.check(f"{browser.name} {browser.path}", browser.board, browser.board_at, now, self.DELAY)


FEED_ORACLES = (LiveDocuments, Boards, Streams)


def seconds(text: str) -> int:
    hours, minutes, rest = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + rest
