"""A GOVI gateway of the world: it answers stops with boards that name the question, in every wrong way as well.

Independent of govi_server: it writes and reads its documents itself. Each answer has a serial number, which its first
trip has as its JourneyNumber, so that a served document can be traced to it.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from tests.simulation.http_client import Message, Reader, Wire
from tests.simulation.network import ListeningSocket, Socket

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

ZONE = ZoneInfo("Europe/Amsterdam")
DEADLINE = 10.0
"""Seconds after which a question ends without an answer."""
FORGER = "10.0.9.9"
"""A machine that answers in the gateway's place, from a network that may not."""
LATE = 300.0
"""Seconds after which an answer is unsolicited."""

BAD = ("closed", "refuse", "error")
"""Modes in which no board can be served."""
UNREACHABLE = ("refuse", "error", "reset", "closed", "silent", "early")
"""Modes in which questions are not accepted, or not in time."""

MODES = (
    "refuse", "error", "reset", "closed", "silent", "lost", "slow", "late", "repeat", "foreign", "unsolicited",
    "broken", "codeless", "early", "numberless", "chopped", "forged",
)  # fmt: skip
"""The ways in which a gateway misbehaves, each for a while."""


@dataclass(slots=True, eq=False)
class Question:
    """A DRIS_55_REQ that arrived."""

    code: str
    number: str
    at: float
    index: int
    """Its place among all questions of the gateway."""
    node: Node
    epoch: int
    """The process of the node that sent it."""
    ended_at: float | None = None
    """When an answer of it was accepted, or it was refused; None while it is under way."""
    answers: list[Answer] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Answer:
    """A DRIS_55 that was sent to a node."""

    serial: int
    module: str
    code: str
    question: Question | None
    """None if it was not asked for."""
    kind: str
    body: bytes
    sent_at: float
    epoch: int
    accepted_at: float | None = None
    """When the node acknowledged it with 200 (steady time)."""
    status: int | None = None
    was_repeated: bool = False
    merged: bool = False
    """Whether it was sent together with the answer to another question."""


class Gateway:
    """One gateway, of one module. Its callbacks reach any node, through the balancer."""

    def __init__(self, world: World, module: str, host: str, callback_port: int, random: Random) -> None:
        self.world = world
        self.module = module
        self.host = host
        self.callback_port = callback_port
        self.random = random
        self.mode = ""
        self.url = f"http://{host}:80/TMI_Post"
        self.questions: dict[str, list[Question]] = {}
        self.answers: dict[int, Answer] = {}
        self.n_questions = 0
        self.healthy_since = world.scheduler.now
        """When it began to behave; inf while it does not."""
        self.bad_since = inf
        self.reachable_since = -inf
        self.was_asked: dict[Node, float] = {}
        """The nodes that have asked it since it began to misbehave."""
        self.chunks = Random(f"{world.seed}/gateway/{module}/chunks")
        self.stops = [f"{self.random.randrange(10**7, 10**8)}" for _ in range(10)]
        """The stops that many ask for."""
        self.doubles = Random(f"{world.seed}/gateway/{module}/doubles")
        self.merged: dict[Question, Answer] = {}
        """The questions that are answered together with another one."""
        own = Random(f"{world.seed}/gateway/{module}/habits")
        self.quiet_stops = [f"{own.randrange(10**7, 10**8)}" for _ in range(30)]
        self.all_stops = frozenset((*self.stops, *self.quiet_stops))
        self.number = own.choice((None, None, None, None, "0", "56"))
        """The SequenceNumber of all of its answers; None if it echoes those of questions."""
        self._listening: ListeningSocket | None = None
        self._idle: dict[Node, Wire] = {}
        self.forgotten = Random(f"{world.seed}/gateway/{module}/forgotten")
        world.scheduler.after(LATE, self._answer_forgotten)
        self.open()

    # Faults.

    def set_mode(self, mode: str) -> None:
        """Begin to misbehave, or behave again."""
        if self.mode == "closed":
            self.open()
        if self.mode in UNREACHABLE:
            self.reachable_since = self.world.scheduler.now
        self.mode = mode
        if mode == "closed" and self._listening is not None:
            self._listening.close()
            self._listening = None
        self.was_asked.clear()
        self.healthy_since = inf if mode else self.world.scheduler.now
        self.bad_since = inf if mode not in BAD else min(self.bad_since, self.world.scheduler.now)

    def open(self) -> None:
        self._listening = listening = ListeningSocket(self.world.network, self.host)
        listening.bind(("", 80))
        listening.watchers.append(self._accept)

    # Questions.

    def _accept(self) -> None:
        while self._listening is not None and self._listening.queue:
            sock, _ = self._listening.accept()
            self._serve(sock)

    def _serve(self, sock: Socket) -> None:
        wire = Wire(sock)
        if self.mode == "reset" and self.random.random() < 0.5:
            wire.abort()
            return
        reader = Reader(lambda message: self._asked(wire, message))
        wire.on_data = reader.feed
        wire.on_end = wire.close
        wire.begin()

    def _asked(self, wire: Wire, message: Message) -> None:
        now = self.world.scheduler.now
        code = re.search(b"<TimingPointCode>([0-9]+)</TimingPointCode>", message.body)
        number = re.search(b"<SequenceNumber>([0-9]+)</SequenceNumber>", message.body)
        if code is None or number is None or b"<DRIS_55_REQ>" not in message.body:
            self.world.found("gateway", f"unreadable question {message.body!r}")
            return
        node = self.world.node_of(wire.sock.remote[0])
        assert node is not None
        self.n_questions += 1
        self.was_asked.setdefault(node, now)
        stop = code[1].decode()
        question = Question(stop, number[1].decode(), now, self.n_questions, node, node.epoch)
        self.questions.setdefault(stop, []).append(question)
        self.world.event("question", f"{self.module} {stop} {question.number}")
        self.world.asked(self, question)
        mode = self.mode
        if mode == "refuse":
            question.ended_at = now
            self._respond(wire, "503 Service Unavailable", b"busy")
        elif mode == "error":
            question.ended_at = now
            self._respond(wire, self.random.choice(("500 Internal Server Error", "404 Not Found", "302 Found")), b"")
        elif mode == "reset":
            question.ended_at = now
            wire.abort()
        elif mode == "silent":
            pass
        elif stop not in self.all_stops:
            self._respond(wire, "200 OK", self._acknowledgement())
        else:
            if mode == "early":
                self._answer_later(question, 0.0)
                self.world.scheduler.after(self.random.uniform(0.5, 12), self._respond, wire, "200 OK", b"")
                return
            self._respond(wire, "200 OK", self._acknowledgement())
            self._plan(question, mode)

    def _plan(self, question: Question, mode: str) -> None:
        usual = 0.05 + 0.4 * self.random.random()
        if mode == "lost":
            return
        if mode == "slow":
            self._answer_later(question, self.random.uniform(1, 9.9))
        elif mode == "late":
            delay = self.random.uniform(9.9, 25) if self.random.random() < 0.8 else self.random.uniform(20, 320)
            self._answer_later(question, delay)
        elif mode == "repeat":
            self._answer_later(question, usual)
            self._answer_later(question, usual + self.random.uniform(0.01, 20), "repeat")
        elif mode in ("foreign", "unsolicited", "broken", "codeless", "forged"):
            self._answer_later(question, usual / 2, mode)
            if self.random.random() < 0.7:
                self._answer_later(question, self.random.uniform(usual, 9))
        elif mode == "numberless":
            self._answer_later(question, self.random.uniform(0.05, 3), mode)
        elif mode == "chopped":
            self._answer_later(question, usual, mode)
        else:
            self._answer_later(question, usual)

    def _acknowledgement(self) -> bytes:
        return (
            b"<?xml version='1.0' encoding='utf-8'?><DRIS_55_RES><SubscriberID>openOV</SubscriberID>"
            b"<ResponseCode>OK</ResponseCode></DRIS_55_RES>"
        )

    def _respond(self, wire: Wire, status: str, body: bytes) -> None:
        if wire.closed:
            return
        if self.random.random() < 0.1:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            wire.send(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n")
        elif self.random.random() < 0.1:
            wire.send(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + body)
            wire.half_close()
        else:
            wire.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    # Answers.

    def _answer_forgotten(self) -> None:
        """Answer a question that was asked so long ago that the answer is unsolicited."""
        now = self.world.scheduler.now
        self.world.scheduler.after(self.forgotten.uniform(20, 90), self._answer_forgotten)
        questions = [
            asked[-1]
            for asked in self.questions.values()
            if LATE + 2 < now - asked[-1].at < 3 * LATE and self.world.is_current(asked[-1].epoch)
        ]
        if questions and not self.world.is_quiet and self.world.engines is None:
            self.answer(self.forgotten.choice(questions), "forgotten")

    def _answer_later(self, question: Question, delay: float, kind: str = "") -> None:
        self.world.scheduler.after(delay, self.answer, question, kind)

    def answer(self, question: Question, kind: str = "") -> None:
        """Send the answer to a question, or something in its place."""
        if self.world.is_quiet and self.world.scheduler.now - question.at > 3 * DEADLINE:
            return  # a callback must not be under way at the end of the quiet time
        if kind == "" and question in self.merged:
            return  # it is in the answer to another question
        stop, number, asked = question.code, self.number or question.number, True
        earlier = [answer for answer in question.answers if answer.kind in ("", "repeat", "numberless", "chopped")]
        if kind == "repeat" and earlier:
            earlier[0].was_repeated = True
            self._post(earlier[0].body, None, "repeat", stop, question)
            return
        serial = len(self.answers) + 1
        if kind == "foreign":  # the board of another stop, which may not have been asked for, with this number
            stop, asked = self.random.choice(self.stops), False
        elif kind == "unsolicited":
            stop, asked = f"{self.random.randrange(10**7, 10**8)}", False
        elif kind == "numberless":
            number = "0"
        body = self.write(serial, stop, number, question.node)
        if kind == "broken":
            body = body.replace(b"</Request>", b"")
        elif kind == "codeless":
            body = b"<html>Internal error</html>" if self.random.random() < 0.5 else b"\x1f\x8b broken"
        elif kind in ("forged", "forgotten"):
            asked = False
        answer = Answer(
            serial, self.module, stop, question if asked else None, kind, body, self.world.scheduler.now,
            question.node.epoch,
        )  # fmt: skip
        self.answers[serial] = answer
        if kind in ("foreign", "broken") or not self.world.is_current(question.epoch):
            # It may end any question for the stop.
            for other in self.questions.get(stop, ()):
                other.ended_at = other.ended_at or self.world.scheduler.now
        if asked:
            question.answers.append(answer)
            question.ended_at = question.ended_at or self.world.scheduler.now
        together = self._find_another(question) if kind == "" and self.mode == "" else None
        if together is not None:
            body = self._merge(body, number, together)
        self._post(body, answer, kind, stop, question)

    def _find_another(self, question: Question) -> Question | None:
        """Return a question for another stop that may be answered together with one."""
        now = self.world.scheduler.now
        others = [
            asked[-1]
            for asked in self.questions.values()
            if asked[-1].ended_at is None
            and asked[-1].epoch == question.epoch
            and now - asked[-1].at < 0.5
            and asked[-1].code in self.all_stops
        ]
        is_possible = self.world.engines is None and self.world.is_current(question.epoch)
        return self.doubles.choice(others) if is_possible and others and self.doubles.random() < 0.5 else None

    def _merge(self, body: bytes, number: str, other: Question) -> bytes:
        """Return an answer with the board of another question as well."""
        serial = len(self.answers) + 1
        point = re.search(b"<TimingPoint>.*</TimingPoint>", self.write(serial, other.code, number, other.node))
        assert point is not None
        own = re.sub(b"<TimingPoint>.*</TimingPoint>", lambda match: point[0], body)
        now = self.world.scheduler.now
        answer = Answer(serial, self.module, other.code, other, "numberless", own, now, other.epoch, merged=True)
        self.answers[serial] = answer
        self.merged[other] = answer
        other.answers.append(answer)
        other.ended_at = now
        self.world.event("merged", f"{self.module} {other.code} {serial}")
        return body.replace(b"</TimingPoint>", b"</TimingPoint>" + point[0])

    def _post(
        self, body: bytes, answer: Answer | None, kind: str, stop: str, question: Question, retries: int = 3
    ) -> None:
        world = self.world
        is_gzip = self.random.random() < 0.2 and kind != "codeless"
        data = gzip.compress(body, 1, mtime=0) if is_gzip else body
        expects = self.random.random() < 0.1
        is_chunked = self.chunks.random() < 0.2
        node = world.balancer.choose(self.module, self.callback_port, question.node)
        head = (
            f"POST /KV55/callback HTTP/1.1\r\nHost: {node.host}:{self.callback_port}\r\n"
            "Content-Type: text/xml\r\n"
            + ("Transfer-Encoding: chunked\r\n" if is_chunked else f"Content-Length: {len(data)}\r\n")
            + ("Content-Encoding: gzip\r\n" if is_gzip and self.random.random() < 0.5 else "")
            + ("Expect: 100-continue\r\n" if expects else "")
            + "\r\n"
        ).encode()
        if is_chunked:
            middle = self.chunks.randrange(len(data))
            parts = [part for part in (data[:middle], data[middle:]) if part]
            data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        world.event("callback", f"{self.module} {stop} {kind or 'answer'} {answer.serial if answer else 'again'}")
        is_forged = kind == "forged"
        wire = None if is_forged else self._idle.pop(node, None)
        is_reused = wire is not None and not wire.closed and not wire.ended
        if wire is None or not is_reused:
            host = FORGER if is_forged else self.host
            wire = Wire.connect(world.network, host, (node.host, self.callback_port))
        sent = world.scheduler.now
        epoch = node.epoch
        post = wire

        has_response = False

        def responded(message: Message) -> None:
            nonlocal has_response
            has_response = True
            world.acknowledged(self, answer, kind, message.status, sent, question, epoch)
            for other, second in list(self.merged.items()):
                if second.status is None and b"<TimingPointCode>%b<" % second.code.encode() in body:
                    world.acknowledged(self, second, "numberless", message.status, sent, other, epoch)
            if message.fields.get("connection") == "close" or kind == "forged" or self.random.random() < 0.3:
                post.close()
            else:
                self._idle[node] = post

        def ended() -> None:
            post.close()
            # The node has closed it meanwhile, or does not listen, which the balancer has not noticed.
            is_refused = post.end == "refused" and len(world.nodes) > 1
            if (is_reused or (is_refused and retries)) and not has_response:
                self._post(body, answer, kind, stop, question, retries - is_refused)

        wire.on_data = Reader(responded).feed
        wire.on_end = ended
        if kind == "chopped":
            for n in range(0, len(data), 100):
                world.scheduler.after(n / 2000, wire.send, data[n : n + 100])
            wire.send(head)
        else:
            wire.send(head + data)

    def write(self, serial: int, code: str, number: str, node: Node) -> bytes:
        """Return a DRIS_55 with a few trips, for a node."""
        random, now = self.random, node.wall_time()
        utc = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")[:19]
        local = datetime.fromtimestamp(now, ZONE)
        trips = []
        for n in range(random.randrange(1, 6)):
            at = local + timedelta(minutes=3 + 11 * n + random.randrange(5))
            delay = random.choice((0, 0, 1, 3))
            day = at.date()
            hours = at.hour
            if hours < 4:
                day, hours = day - timedelta(1), hours + 24
            expected = at.minute + delay
            trips.append(
                f"<Trip><OperatingDate>{day}</OperatingDate><DataOwnerCode>GVB</DataOwnerCode>"
                f"<LinePlanningNumber>69</LinePlanningNumber>"
                f"<DestinationName>Sloterdijk &amp; {random.choice(('Zuid', 'Noord', 'Café'))}</DestinationName>"
                f"<JourneyNumber>{serial if n == 0 else 900_000 + n}</JourneyNumber>"
                f"<FortifyOrderNumber>0</FortifyOrderNumber>"
                f"<TargetDepartureTime>{hours:02}:{at.minute:02}:00</TargetDepartureTime>"
                f"<ExpectedDepartureTime>{hours + expected // 60:02}:{expected % 60:02}:{random.randrange(60):02}"
                f"</ExpectedDepartureTime>"
                + (f"<TripStopStatus>{random.choice(('DRIVING', 'PLANNED'))}</TripStopStatus>" if n % 2 else "")
                + "</Trip>"
            )
        comment = "<!-- late -->" if random.random() < 0.1 else ""
        return (
            "<?xml version='1.0' encoding='utf-8'?>\n<DRIS_55><SubscriberID>openOV</SubscriberID>"
            f"<Version>0.0.1</Version><DossierName>KV55</DossierName><SendTimestamp>{utc}+01:00</SendTimestamp>"
            f"{comment}<Request><RequestTimestamp>{utc}</RequestTimestamp><SequenceNumber>{number}</SequenceNumber>"
            f"<TimingPoint><TimingPointCode>{code}</TimingPointCode>{''.join(trips)}</TimingPoint>"
            "</Request></DRIS_55>"
        ).encode()
