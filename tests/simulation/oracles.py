"""The rules of the world, one class for each, checked all the time.

An oracle receives events through the methods of Oracle that it overrides, and reports what breaks its rule with
found(). None of them looks inside the program.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from datetime import date
from math import inf
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from tests.simulation import documents
from tests.simulation.feed import moments
from tests.simulation.gateway import BAD, DEADLINE, LATE, UNREACHABLE, Answer, Gateway, Question
from tests.simulation.users import LINGER_SECONDS, Books, Exchange, Flooder, Operator, Session, User

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SLACK = 0.5
"""Seconds for the network, which are not the program's."""
FRESH, STALE = 60.0, 300.0
STEP_SECONDS = 3.0
"""Time that the program has to notice that the clock was set."""
READ_SECONDS = 5
"""Time between two looks at the statistics log."""
ROTATE_BYTES = 50_000
"""Size at which the statistics log is rotated."""
STREAM_SECONDS = 14.0
"""Time in which a board is in the streams of its stop."""
FEED_SECONDS = 150.0
"""Seconds without data and heartbeats after which the feed is down."""
KEEP = 3
"""The number of rotated statistics logs that remain."""
CACHE_BYTES = 1_000_000
"""Enough for the boards of all stops of a module, with their documents."""
RESTORE_SECONDS = 5.0
"""Time in which a process has read its snapshot."""
BREAKER_PROBE_SECONDS = 1.5
"""Time for the first question after a gateway was unreachable, until which all others still fail."""


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


class OneQuestion(Oracle):
    """At most one question for a stop is under way.

    Unless a late answer to an earlier question has ended it: in a tight world, that board may be evicted; and a
    gateway that does not echo numbers may be asked by a check of readiness.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.accepted_at: dict[tuple[str, str], float] = {}
        """When a board of a module and stop was last accepted."""
        self.answered: dict[tuple[str, str], tuple[float, int]] = {}
        """When the latest question of a stop was answered in time, and by which process."""
        self.probed_at = -inf

    def sent(self, exchange: Exchange) -> None:
        if isinstance(exchange.user, Operator) and exchange.path == "/ready":
            self.probed_at = self.now  # which asks for boards that it has

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        is_last = gateway.questions[question.code][-1] is question and self.now - question.at < DEADLINE - 1
        # Without numbers, a late answer to an earlier question has perhaps resolved this one.
        is_last = is_last and self.accepted_at.get((gateway.module, question.code), 0.0) < question.at
        if answer is not None and kind == "" and status == 200 and is_last and question.epoch == epoch:
            self.answered[gateway.module, answer.code] = self.now, epoch
        if answer is not None and status == 200:
            self.accepted_at[gateway.module, answer.code] = self.now

    def asked(self, gateway: Gateway, question: Question) -> None:
        others = [
            other
            for other in gateway.questions[question.code]
            if other is not question
            and other.ended_at is None
            and other.epoch == question.epoch
            and question.at - other.at < DEADLINE - 1
        ]
        if self.world.step_slack(question.at - DEADLINE):
            return
        answered_at, epoch = self.answered.get((gateway.module, question.code), (-inf, 0))
        is_probe = self.now - self.probed_at < DEADLINE
        is_fresh = question.at - answered_at < FRESH - 1 and epoch == question.epoch
        if is_fresh and not (is_probe or self.world.is_tight or self.world.stepped_since(answered_at)):
            since = question.at - answered_at
            self.found(f"/{gateway.module}/{question.code}: asked, {since:.1f} s after its board was accepted")
        if self.world.is_tight or gateway.number is not None:
            accepted_at = self.accepted_at.get((gateway.module, question.code), 0.0)
            others = [other for other in others if other.at > accepted_at]
        if others:
            seconds = question.at - others[-1].at
            self.found(f"/{gateway.module}/{question.code}: asked again {seconds:.3f} s after a pending question")


class Probes(Oracle):
    """While a gateway does not accept questions, it is asked one at a time, after those that opened the breaker.

    With other nodes, a question may end for another reason than the gateway's silence, which closes the breaker.
    """

    FAILURES = 10

    def asked(self, gateway: Gateway, question: Question) -> None:
        if gateway.mode != "silent" or self.world.engines is not None or self.world.step_slack(question.at - 60):
            return
        since = gateway.was_asked[question.node]
        asked = [
            other
            for others in gateway.questions.values()
            for other in others
            if other.epoch == question.epoch and other is not question and other.at >= since
        ]
        failed = sorted(other.at + DEADLINE + 0.5 for other in asked if question.at - other.at > DEADLINE + 0.5)
        opened_at = failed[self.FAILURES] if len(failed) > self.FAILURES else inf
        pending = [other for other in asked if other.at > max(opened_at, question.at - DEADLINE + 0.5)]
        if pending:
            self.found(f"/{gateway.module}/{question.code}: asked while {len(pending)} questions are not accepted")


class Boards(Oracle):
    """A gateway's board is what the gateway sent, for this stop, for a question; it is as old as its Age says, not
    beyond its stale limit, and never older than one that the program had before.
    """

    TRANSIT = 0.0
    """Seconds that a board's age may lack for the way through the engine."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.newest: dict[tuple[str, str], tuple[int, Answer]] = {}
        """By module and stop: the index of the question of the newest board that the program has accepted."""
        self.seen: dict[tuple[User, str, str], tuple[int, float]] = {}
        """The index of the newest board that a user has seen, and when."""
        self.tainted: dict[tuple[str, str], float] = {}
        """When an answer arrived that names no question of its own, so that it may be matched with any."""
        self.broken: set[Question] = set()
        """Questions that have had an unreadable answer."""
        self.accepted: set[Question] = set()
        self.checked: set[tuple[str, int, int]] = set()
        self.etags: dict[tuple[str, str], Answer] = {}
        self.doubtful: set[int] = set()
        """The serial numbers of answers that were accepted when it was not known to which question."""
        self.last_stale: dict[tuple[str, str, int], tuple[float, int]] = {}
        """By module, stop and process: when a board was last served stale, and its serial number."""
        self.saved: dict[tuple[str, str], Answer] = {}
        """The newest boards that the last process had when it stopped in good order."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        if answer is not None and self.world.step_slack(question.at):
            self.doubtful.add(answer.serial)
        if not self.world.is_current(epoch) or self.world.step_slack(question.at) or self.is_cut_off(status, epoch):
            return
        key = gateway.module, answer.code if answer is not None else question.code
        was_asked = question.epoch == epoch and sent - question.at < LATE - 1
        if kind in ("", "chopped", "repeat", "numberless") and was_asked and status != 200:
            self.found(f"/{key[0]}/{key[1]}: an answer {sent - question.at:.1f} s after its question got {status}")
        since = sent - LATE - 1
        was_unreachable = gateway.mode in UNREACHABLE or gateway.reachable_since > since
        is_asked_again = was_unreachable or any(other.at > since for other in gateway.questions[question.code])
        if kind == "forgotten" and status != 403 and not is_asked_again and not self.world.stepped_since(since):
            self.found(f"/{key[0]}/{key[1]}: an answer {sent - question.at:.1f} s after its question got {status}")
        if kind in ("unsolicited", "forged") and status != 403:
            self.found(f"/{key[0]}/{key[1]}: an {kind} callback got {status}")
        if (
            kind in ("broken", "codeless")
            and status == 400
            and question.epoch == epoch
            and self.world.engines is None
        ):
            self.broken.add(question)
        if kind in ("broken", "codeless") and status != 400:
            self.found(f"/{key[0]}/{key[1]}: an unreadable callback got {status}")
        if answer is None:
            if status == 200 and (gateway.number is not None or self.is_matched_by_stop(gateway, question, epoch)):
                self.tainted[key] = self.now  # a repeated answer may be taken for that to another question
            return
        answer.status = status
        is_forgotten = sent - question.at >= LATE - 1
        if (
            kind in ("foreign", "numberless", "broken")
            or is_forgotten
            or gateway.number is not None
            or self.is_matched_by_stop(gateway, question, epoch)
        ):
            self.tainted[key] = self.now
        if status != 200 or answer.question is None:
            return
        if self.is_tainted(key):
            self.doubtful.add(answer.serial)
        is_first = question not in self.accepted
        self.accepted.add(question)
        question.ended_at = question.ended_at or self.now
        answer.accepted_at = answer.accepted_at or self.now
        if kind not in ("", "chopped") or not is_first or self.is_tainted(key) or not was_asked:
            return
        newest = self.newest.get(key)
        if newest is None or question.index > newest[0]:
            self.newest[key] = question.index, answer
            self.world.scheduler.after(1.0, self.check_waiters, key, sent, epoch)

    def tick(self) -> None:
        """A stream of a board shows the newest one, or one that is newer than the program may know."""
        world, now = self.world, self.now
        if world.feed is not None or world.engines is not None or int(now) % 5:
            return
        gateway = next(iter(world.gateways.values()))
        for browser in world.browsers:
            session, key = browser.session, (gateway.module, browser.path.split("?")[0].split("/")[2])
            newest = self.newest.get(key)
            is_open = session is not None and session.is_streaming and session.is_usable and not session.wire.paused
            if newest is None or not is_open or not browser.board or browser.opened_at > now - STREAM_SECONDS:
                continue
            if (newest[1].accepted_at or now) > now - STREAM_SECONDS or self.is_tainted(key):
                continue
            possible = [
                answer
                for answer in gateway.answers.values()
                if answer.code == key[1]
                and answer.kind not in ("broken", "codeless")
                and (
                    (answer.question is not None and answer.question.index >= newest[0])
                    or (answer.accepted_at or 0) > now - STREAM_SECONDS
                )
            ]
            for document in documents.board(browser.board):
                times = {shown.target for shown in document.shown}
                if not any(times <= planned_in(answer.body) for answer in possible):
                    self.found(f"{browser.name}: does not show answer {newest[1].serial}, but {document.shown}")

    def is_cut_off(self, status: int, epoch: int) -> bool:
        """Return whether a process has stopped while it offered a callback to other nodes."""
        return status == 406 and any(node.epoch == epoch and node.is_stopping for node in self.world.nodes)

    def is_matched_by_stop(self, gateway: Gateway, question: Question, epoch: int) -> bool:
        """Return whether a process matches the answer to a question with any question for its stop."""
        return question.epoch != epoch

    def is_tainted(self, key: tuple[str, str]) -> bool:
        # After a step of the clock, late answers seem unsolicited, or of the question that is under way.
        return self.now - self.tainted.get(key, -LATE) < LATE or self.world.stepped_since(self.now - LATE)

    def check_waiters(self, key: tuple[str, str], sent: float, epoch: int) -> None:
        """All who waited when an answer was sent have it a second after it was acknowledged."""
        for session in self.world.sessions:
            if len(session.pending) != 1 or session.epoch != epoch or session.wire.paused:
                continue
            exchange = session.pending[0]
            waits = (exchange.module, exchange.stop) == key and exchange.sent_at < sent - 0.2
            is_late = self.world.step_slack(sent) or self.world.disk.slack
            if waits and not exchange.books.is_unclean and not is_late:
                self.found(f"{exchange}: waits, though its answer was acknowledged a second ago")

    def completed(self, exchange: Exchange) -> None:
        gateway = self.world.gateways.get(exchange.module)
        if gateway is None or (exchange.stop not in gateway.questions and exchange.stop not in gateway.all_stops):
            return
        key = exchange.module, exchange.stop
        if exchange.status in (200, 304):
            self.check_board(gateway, key, exchange)
        elif exchange.status in (502, 503, 504):
            self.check_error(gateway, key, exchange)

    def check_board(self, gateway: Gateway, key: tuple[str, str], exchange: Exchange) -> None:
        assert exchange.response is not None
        etag = exchange.header("etag") or ""
        if exchange.status == 304:
            known = exchange.known
            assert known is not None
            if known.header("etag") != etag:
                return  # by its date, see Representations
            answer = self.etags.get((exchange.path, etag))
            if answer is None:
                self.found(f"{exchange}: 304 for an unknown entity tag")
                return
        elif exchange.method == "HEAD":
            return
        else:
            body = exchange.response.body
            if exchange.header("content-encoding") == "gzip":
                if "gzip" not in exchange.fields.get("Accept-Encoding", ""):
                    self.found(f"{exchange}: gzip was not asked for")
                body = gzip.decompress(body)
            serial = re.search(rb"<JourneyNumber>(\d+)</JourneyNumber>", body)
            answer = gateway.answers.get(int(serial[1])) if serial else None
            if answer is None:
                self.found(f"{exchange}: a board that the gateway did not send: {body[:200]!r}")
                return
            self.etags[exchange.path, etag] = answer
            mark = gateway.module, answer.serial, hash(body)
            if mark not in self.checked:
                self.checked.add(mark)
                difference = compare(answer.body, body)
                if difference:
                    self.found(f"{exchange}: differs from answer {answer.serial}: {difference}")
        if (answer.module, answer.code) != key:
            self.found(f"{exchange}: has the board of /{answer.module}/{answer.code}")
            return
        if answer.status not in (None, 200) and not answer.was_repeated:
            self.found(f"{exchange}: has a board whose callback got {answer.status}")
        self.check_age(gateway, key, exchange, answer)
        self.check_order(key, exchange, answer)

    def check_age(self, gateway: Gateway, key: tuple[str, str], exchange: Exchange, answer: Answer) -> None:
        assert exchange.ended_at is not None
        if self.world.stepped_since(answer.sent_at):
            return
        age = int(exchange.header("age") or -1)
        oldest = exchange.ended_at - answer.sent_at
        accepted_at = None if answer.was_repeated else answer.accepted_at
        youngest = exchange.sent_at - (accepted_at or self.now)
        if not youngest - 1.01 - self.TRANSIT <= age <= oldest + 0.01 or age > STALE:
            self.found(f"{exchange}: Age is {age}, though the board is {youngest:.1f} to {oldest:.1f} s old")
        status = exchange.header("cache-status") or ""
        ttl = re.search(r"ttl=(-?\d+)", status)
        if ttl and abs(int(ttl[1]) + age - FRESH) > 1:
            self.found(f"{exchange}: Age is {age}, and Cache-Status {status}")
        is_stale = "fwd=stale" in status or (exchange.response is not None and age > FRESH)
        place = (*key, exchange.epoch)
        if not is_stale or self.world.is_tight:
            self.last_stale.pop(place, None)
            return
        since = self.refreshes_since(gateway, exchange)
        previous = self.last_stale.get(place)
        if previous is None or previous[1] != answer.serial or previous[0] < since:
            self.last_stale[place] = self.now, answer.serial
        elif exchange.sent_at - previous[0] > 13 and key[1] in gateway.all_stops:
            self.found(f"{exchange}: still stale {exchange.sent_at - previous[0]:.1f} s after it was to be refreshed")

    def refreshes_since(self, gateway: Gateway, exchange: Exchange) -> float:
        """Return since when a board that is served stale is refreshed; inf if it cannot be."""
        # Until then, questions may be under way, or the breaker open: for idle processes, until their first question.
        first = gateway.was_asked.get(exchange.node, -inf)
        return max(gateway.healthy_since + 17, first + BREAKER_PROBE_SECONDS)

    def check_order(self, key: tuple[str, str], exchange: Exchange, answer: Answer) -> None:
        question = answer.question
        if question is None or answer.was_repeated:
            return
        if self.is_tainted(key) or answer.serial in self.doubtful:
            return
        seen = (exchange.user, *key)
        index, seen_at = self.seen.get(seen, (0, 0.0))
        if question.index < index and exchange.sent_at >= seen_at:
            self.found(
                f"{exchange}: has an older board than before: answer {answer.serial} of question {question.index}, "
                f"after one of question {index}"
            )
        if question.index >= index:
            self.seen[seen] = question.index, self.now
        newest = self.newest.get(key)
        if newest is not None and question.index < newest[0] and (newest[1].accepted_at or 0) < exchange.sent_at:
            self.found(
                f"{exchange}: has answer {answer.serial}, though answer {newest[1].serial} of a later question was "
                f"accepted {exchange.sent_at - (newest[1].accepted_at or 0):.1f} s before"
            )

    def check_error(self, gateway: Gateway, key: tuple[str, str], exchange: Exchange) -> None:
        assert exchange.response is not None
        if self.world.step_slack(exchange.sent_at - 15) or self.world.is_tight or exchange.books.is_unclean:
            return
        answer = self.stored(key, exchange)
        if (
            answer is not None
            and self.now - answer.sent_at < STALE - 1
            and not self.world.stepped_since(answer.sent_at)
        ):
            self.found(f"{exchange}: {exchange.status}, though answer {answer.serial} is not too old")
        if b"Gateway unreachable" in exchange.response.body:
            self.world.scheduler.after(BREAKER_PROBE_SECONDS, self.check_unreachable, gateway, exchange, self.now)
            return
        healthy = self.now - gateway.healthy_since
        if key[1] in gateway.all_stops and healthy > 20 and self.now - exchange.node.started_at > 1:
            self.found(f"{exchange}: {exchange.status}, though the gateway is well for {healthy:.0f} s")
        if exchange.method == "HEAD":
            return
        questions = gateway.questions.get(key[1], [])
        last = questions[-1] if questions else None
        is_broken = last is not None and last.epoch == exchange.epoch and last in self.broken
        kinds = {answer.kind for answer in last.answers} if last is not None else set()
        is_broken = is_broken and kinds <= {"broken", "codeless"}
        if is_broken and last is not None and last.at < exchange.sent_at + 1 and exchange.status != 502:
            self.found(f"{exchange}: {exchange.status}, though the answer was unreadable")
        if not questions or self.now - questions[-1].at > DEADLINE + 1.5:
            self.found(f"{exchange}: {exchange.status}, though the gateway was not asked")

    def check_unreachable(self, gateway: Gateway, exchange: Exchange, at: float) -> None:
        """A gateway that accepts questions again is reported as unreachable only until the first one is answered."""
        first = gateway.was_asked.get(exchange.node, -inf)
        accepts_since, healthy = at - gateway.reachable_since, at - gateway.healthy_since
        if gateway.mode in UNREACHABLE or abs(at - first) < BREAKER_PROBE_SECONDS:
            return
        if accepts_since > 2 * DEADLINE + 10 or healthy > 20:
            self.found(
                f"{exchange}: {exchange.status}, though the gateway accepts questions for {accepts_since:.0f} s"
            )

    def stored(self, key: tuple[str, str], exchange: Exchange) -> Answer | None:
        """Return the newest board that a process had when a request was sent."""
        saved = self.saved.get(key)
        if saved is not None and exchange.sent_at > exchange.node.started_at + RESTORE_SECONDS:
            return saved
        _, answer = self.newest.get(key, (0, None))
        if answer is None or answer.epoch != exchange.epoch or (answer.accepted_at or 0) >= exchange.sent_at:
            return None
        return answer

    def stopped(self, node: Node, clean: bool) -> None:
        self.accepted.clear()
        self.last_stale.clear()
        self.seen.clear()
        newest = {key: answer for key, (_, answer) in self.newest.items() if answer.epoch == node.epoch}
        self.saved = {
            key: answer
            for key, answer in ((self.saved | newest) if clean else {}).items()
            if self.now - answer.sent_at < STALE and (answer.accepted_at or inf) < node.stopping_at
        }
        if not clean:  # the snapshot may be a minute old
            self.newest.clear()


def planned_in(data: bytes) -> set[documents.Moments]:
    """Return the planned times of an answer, as a board may write them."""
    times = set()
    for trip in ElementTree.fromstring(data).iter("Trip"):
        hours, minutes, seconds = map(int, (trip.findtext("TargetDepartureTime") or "").split(":"))
        day = date.fromisoformat(trip.findtext("OperatingDate") or "")
        times |= {(moment, moment) for moment in moments(day, hours * 3600 + minutes * 60 + seconds)}
    return times


def flatten(data: bytes) -> list[tuple[str, str]]:
    """Return the elements of a document with their texts."""
    return [
        (element.tag, (element.text or "").strip())
        for element in ElementTree.fromstring(data).iter()
        if isinstance(element.tag, str)
    ]


def compare(sent: bytes, served: bytes) -> str:
    """Return how a served document differs from a callback, except in its License; "" if it does not."""
    expected, actual = flatten(sent), [item for item in flatten(served) if item[0] != "License"]
    if expected == actual:
        return ""
    different = next((pair for pair in zip(expected, actual, strict=False) if pair[0] != pair[1]), None)
    return f"{different or (len(expected), len(actual))}"


def told_cache_result(request: dict[str, Any]) -> str:
    """Return the cache result of a request in the log as far as its client was told."""
    is_told = request.get("module") not in ("board", "events") and request["status"] != 406
    return str(request["cache"]) if is_told else ""


class Statistics(Oracle):
    """Each connection that a node accepts has exactly one final record, and all of them say what the users saw."""

    PHASES = ("receive", "parse", "lookup", "wait", "render", "send")

    def __init__(self, world: World, node: Node) -> None:
        super().__init__(world)
        self.node = node
        self.files: list[Any] = []
        """The files of the log, open, so that their names may change: the newest last."""
        self.cut_off: set[bytes] = set()
        """The last lines of files that were cut off."""
        self.rest = b""
        """The beginning of a line that is not written yet."""
        self.lines: dict[str, list[dict[str, Any]]] = {}
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """By module, status and cache result, since the process was started."""
        self.phases: Counter[str] = Counter()
        self.bytes = 0
        self.connections = 0

    def read(self) -> None:
        """Read the lines that were written since the last call."""
        for text in self.new_lines():
            try:
                line = json.loads(text)
            except ValueError:
                if not self.world.disk.was_full:
                    self.found(f"a line that is not JSON: {text[:200]!r}")
                continue
            self.lines.setdefault(line["client"], []).append(line)
            self.connections += line["end"] != "open"
            if not 0 <= line["duration"] < 62_000 and not self.world.steps:
                self.found(f"a connection of {line['duration']} ms: {text[:200]!r}")
            statuses = [request["status"] for request in line["requests"]]
            if line["end"] not in ("open", "timeout") and statuses[-1:] == [406]:
                self.found(f"ended by {line['end']!r} after its deadline: {text[:300]!r}")
            for request in line["requests"]:
                module = request.get("module", "other" if request["path"] else "")
                self.requests[module, str(request["status"] or "none"), request["cache"]] += 1
                self.phases.update(request["phases"].keys())
                self.bytes += request["bytes"]
                self.check_request(request)

    def new_lines(self) -> list[bytes]:
        """Return the lines that were written since the last call, also to a file that was renamed since."""
        data = b"".join(file.read() + b"\n" for file in self.files[:-1]) + self.rest
        data += b"".join(file.read() for file in self.files[-1:])
        path = self.node.statistics
        if path.exists():
            if not self.files or not os.path.samestat(os.fstat(self.files[-1].fileno()), path.stat()):
                self.files = [*self.files[-1:], path.open("rb")]
                data += b"\n" + self.files[-1].read()
            if path.stat().st_size > ROTATE_BYTES + (1 << 16):
                self.found(f"the log has {path.stat().st_size} bytes")
        elif self.files and len(data) > len(self.rest) + 1:  # it was read just before
            self.found("lines are written to a file that was renamed")
        *lines, self.rest = data.split(b"\n")
        return [line for line in lines if line and line not in self.cut_off]

    def skip(self) -> None:
        """Continue at the last lines of the files, which were cut off."""
        for file in self.files:
            file.seek(0)
            content = file.read()
            begin = content.rfind(b"\n") + 1
            self.cut_off.add(content[begin:])  # perhaps a complete line, which was read before
            file.seek(begin)
        self.rest = b""

    def tick(self) -> None:
        if int(self.now) % READ_SECONDS == 0:
            self.read()
            rotated = [
                path for path in self.node.directory.iterdir() if re.fullmatch(r"stat.*\.jsonl\.\d+", path.name)
            ]
            if len(rotated) > KEEP:
                self.found(f"{len(rotated)} rotated logs remain, instead of {KEEP}")

    def check_request(self, request: dict[str, Any]) -> None:
        phases = request["phases"]
        segments = (request["path"] or "").split("/")
        if request["status"] in (200, 304) and (
            request.get("module") != segments[1]
            or (segments[1] in self.world.gateways and request.get("stop") != segments[2])
        ):
            self.found(f"module or stop is not of its path: {request}")
        if [name for name in self.PHASES if name in phases] != list(phases):
            self.found(f"phases out of order: {request}")
        longest = 13_600 + 1000 * self.world.disk.slack
        if not self.world.steps and not all(0 <= time <= longest for time in phases.values()):
            self.found(f"phases too long: {request}")
        if request["cache"] in ("miss", "joined") and request["status"] == 200 and "wait" not in phases:
            self.found(f"no time of waiting: {request}")
        busy = {name: time for name, time in phases.items() if name in ("parse", "lookup", "render")}
        is_board = request.get("module") in self.world.gateways
        if is_board and sum(busy.values()) > 100 + 1000 * self.world.disk.slack and not self.world.steps:
            self.found(f"work that takes no time in this world: {request}")
        if request["cache"] == "hit" and request["status"] == 200 and phases.get("wait", 0) > 1:
            self.found(f"a hit that has waited: {request}")

    def quiet(self) -> None:
        self.check("the world is quiet")

    def stopped(self, node: Node, clean: bool) -> None:
        if node is not self.node:
            return
        if clean:
            self.check("the process has stopped")
        else:
            self.new_lines()
            for user in self.world.users:
                user.books[node] = Books()
        self.lines.clear()
        self.requests.clear()
        self.phases.clear()
        self.connections = self.bytes = 0

    def check(self, when: str) -> None:
        self.read()
        for user in self.world.users:
            books, lines = user.books[self.node], self.lines.pop(user.client, [])
            user.books[self.node] = Books()
            final = sum(line["end"] != "open" for line in lines)
            if final != books.connections:
                self.found(f"{user.name}: {final} final records of {books.connections} connections when {when}")
            if books.is_unclean:
                continue
            logged = Counter(
                (*(request[name] for name in ("method", "path", "status", "bytes")), told_cache_result(request))
                for line in lines
                for request in line["requests"]
            )
            missing = books.complete - logged
            if missing:
                others = sorted(logged - books.complete, key=str)[:3]
                self.found(f"{user.name}: not in the statistics when {when}: {sorted(missing)[:3]}, but {others}")
            extra: Counter[tuple[Any, Any]] = Counter()
            for (method, path, *_), n in (logged - books.complete).items():
                extra[method, path] += n
            extra -= books.incomplete
            extra.pop((None, None), None)  # a connection that ended before its first request
            if extra:
                self.found(f"{user.name}: only in the statistics when {when}: {sorted(extra, key=str)[:3]}")
        self.lines.clear()


class Gauges(Oracle):
    """When the world is quiet, every gauge is zero, and the counters are those of the statistics."""

    ZERO = (
        "govi_connections", "govi_flights", "govi_flights_waiting", "govi_streams", "govi_unfinished_request_bytes",
    )  # fmt: skip

    def quiet(self) -> None:
        for operator in self.world.operators.values():
            operator.ask("/metrics", self.check)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.answered: Counter[tuple[str, int]] = Counter()
        """Callbacks that each process has accepted, by module."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        self.answered[gateway.module, epoch] += status == 200

    def check_gateway(self, name: str, module: str, count: int, exchange: Exchange) -> None:
        """Neither more acknowledgements than questions, nor more answers than were accepted, and not hardly any."""
        questions = self.world.gateways[module].questions.values()
        most = sum(question.epoch == exchange.epoch for asked in questions for question in asked)
        if "callback" in name:
            most = self.answered[module, exchange.epoch]
        if not most / 3 - 3 <= count <= most and self.world.engines is None:
            self.found(f"{name} is {count}, of {most}")

    def check(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        totals: Counter[tuple[str, str, str]] = Counter()
        phases: Counter[str] = Counter()
        ended = n_bytes = 0.0
        for line in exchange.response.body.decode().splitlines():
            if line.startswith("#"):
                continue
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] in self.ZERO and float(value):
                self.found(f"{line} when the world is quiet")
            if float(value) < 0:
                self.found(f"{line} is negative")
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            if name.startswith("govi_requests_total"):
                totals[labels["module"], labels["status"], labels["cache"]] += int(float(value))
            if name.startswith("govi_request_phase_seconds_count") and float(value):
                phases[labels["phase"]] = int(float(value))
            if name.startswith("govi_gateway_") and name.partition("{")[0].endswith("_seconds_count"):
                self.check_gateway(name, labels["module"], int(float(value)), exchange)
            if name == "govi_response_bytes_total":
                n_bytes = float(value)
            if name.startswith("govi_connections_ended_total"):
                ended += float(value)
        if self.world.log_was_lossy:
            return
        statistics = self.world.statistics[exchange.node]
        if totals != statistics.requests:
            more, less = totals - statistics.requests, statistics.requests - totals
            self.found(f"govi_requests_total has {dict(more)} more than the statistics, and {dict(less)} less")
        if phases != statistics.phases:
            self.found(f"govi_request_phase_seconds has {phases}, and the statistics {statistics.phases}")
        if n_bytes != statistics.bytes:
            self.found(f"govi_response_bytes_total is {n_bytes}, and in the statistics {statistics.bytes}")
        if ended != statistics.connections:
            self.found(f"govi_connections_ended_total is {ended}, and in the statistics {statistics.connections}")


class GatewayStreams(Oracle):
    """A stream of a gateway's board is never silent, and shows nothing as live after a minute without a board."""

    BEAT, DELAY = 10.0, 14.0
    LIVE = (b'"state":"on_time"', b'"state":"late"', b'"state":"early"', b'"state":"stopped"')

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.accepted_at: dict[str, float] = {}

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        if status == 200:
            self.accepted_at[answer.code if answer is not None else question.code] = self.now

    def tick(self) -> None:
        if self.world.feed is not None or int(self.now) % 5 or self.world.stepped_since(self.now - FRESH):
            return
        for browser in self.world.browsers:
            session, code = browser.session, browser.path.split("?")[0].split("/")[2]
            if session is None or not session.is_streaming or not session.is_usable or session.wire.paused:
                continue
            if self.now - browser.last_data > self.BEAT + 3:
                self.found(f"{browser.name}: no event for {self.now - browser.last_data:.1f} s")
            silence = self.now - self.accepted_at.get(code, -inf)
            is_settled = self.now - browser.opened_at > self.DELAY and silence > FRESH + self.DELAY
            if is_settled and any(state in browser.board.replace(b" ", b"") for state in self.LIVE):
                self.found(f"{browser.name}: shows live departures, though the board is {silence:.0f} s old")


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
        if feed is None or not {"silent", "restart"} & {*feed.faults}:
            self.heard_at = self.now

    def completed(self, exchange: Exchange) -> None:
        if exchange.path != "/ready" or not isinstance(exchange.user, Operator):
            return
        world, now, node = self.world, self.now, exchange.node
        if node.is_stopping and exchange.sent_at > node.stopping_at + SLACK and exchange.status == 200:
            self.found(f"/ready is 200, {exchange.sent_at - node.stopping_at:.1f} s after SIGTERM")
        if not node.is_up or now - node.started_at < 60 or world.step_slack(now - 60):
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
    """What is bounded stays within its bound, as far as operators can see."""

    def completed(self, exchange: Exchange) -> None:
        if exchange.path != "/status.json" or not isinstance(exchange.user, Operator) or exchange.status != 200:
            return
        model, started_at = self.world.model, exchange.node.started_at
        current = [
            message.at
            for message in model.messages.values()
            if message.at > started_at + 30 and message.ends > self.now + SLACK
        ]
        for usage in json.loads(self.world.plain_body(exchange))["limits"]:
            if (
                usage["name"] == "general messages"
                and not usage["used"]
                and len(current) > 4
                and not self.world.steps
            ):
                self.found(f"none of {len(current)} messages is stored")
            if usage["limit"] is not None and usage["used"] > usage["limit"]:
                self.found(f"{usage['name']}: {usage['used']}, though {usage['setting']} is {usage['limit']}")


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


ORACLES = (
    Deadlines, Responses, NoCuts, OneQuestion, Probes, Boards, Gauges, GatewayStreams, Health, Bounds, Timetables,
    NoErrors,
)  # fmt: skip
"""The rules of a world, besides the Statistics of each node."""


__all__ = ["ORACLES", "Oracle", "Session"]
