"""The rules of gateways: when they are asked, and what of their answers clients see."""

from __future__ import annotations

import gzip
import re
from datetime import date
from math import inf
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tests.simulation import documents
from tests.simulation.feed import moments
from tests.simulation.gateway import DEADLINE, LATE, UNREACHABLE, Answer, Gateway, Question
from tests.simulation.oracles import Oracle
from tests.simulation.users import Exchange, Operator, User

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

FRESH, STALE = 60.0, 300.0
STREAM_SECONDS = 14.0
"""Time in which a board is in the streams of its stop."""
RESTORE_SECONDS = 5.0
"""Time in which a process has read its snapshot."""
BREAKER_PROBE_SECONDS = 1.5
"""Time for the first question after a gateway was unreachable, until which all others still fail."""


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

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.closed_at: dict[str, float] = {}
        """By module: when an answer to an earlier question last closed the breaker."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        self.closed_at[gateway.module] = self.now

    def asked(self, gateway: Gateway, question: Question) -> None:
        if gateway.mode != "silent" or self.world.engines is not None or self.world.step_slack(question.at - 60):
            return
        since = max(gateway.was_asked[question.node], self.closed_at.get(gateway.module, -inf))
        asked = [
            other
            for others in gateway.questions.values()
            for other in others
            if other.epoch == question.epoch and other is not question and other.at >= since
        ]
        failed = sorted(other.at + DEADLINE + 0.5 for other in asked if question.at - other.at > DEADLINE + 0.5)
        opened_at = failed[self.FAILURES - 1] if len(failed) >= self.FAILURES else inf
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
        if self.world.step_slack(exchange.sent_at - 15) or self.world.is_tight:
            return
        self.check_unreadable(gateway, key, exchange)
        if exchange.books.is_unclean:
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
        if not questions or self.now - questions[-1].at > DEADLINE + 1.5:
            self.found(f"{exchange}: {exchange.status}, though the gateway was not asked")

    def check_unreadable(self, gateway: Gateway, key: tuple[str, str], exchange: Exchange) -> None:
        """A request whose only answers were unreadable gets 502."""
        questions = gateway.questions.get(key[1])
        last = questions[-1] if questions else None
        if exchange.status == 502 or last is None or last.epoch != exchange.epoch or last.at > exchange.sent_at + 1:
            return
        if last.answers and {answer.kind for answer in last.answers} <= {"broken", "codeless"}:
            self.world.scheduler.after(1.0, self.check_rejected, last, exchange)

    def check_rejected(self, question: Question, exchange: Exchange) -> None:
        """The unreadable answer to a question, if the program has received it, is known a second later."""
        if question in self.broken:
            self.found(f"{exchange}: {exchange.status}, though the answer was unreadable")

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
        # The age of a board of another node is by that node's clock.
        settled = FRESH if self.world.engines is None else LATE
        if self.world.feed is not None or int(self.now) % 5 or self.world.stepped_since(self.now - settled):
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


GATEWAY_ORACLES = (OneQuestion, Probes, Boards, GatewayStreams)
