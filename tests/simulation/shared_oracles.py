"""The rules of several nodes that share boards and questions through an engine.

A node is served well by the engine since it has logged in to the master, and that has not misbehaved since. The
promises that need the engine hold from a second later on, and not across a loss of its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from tests.simulation.gateway import DEADLINE, LATE, Answer, Gateway, Question
from tests.simulation.gateway_oracles import FRESH, STALE, Boards
from tests.simulation.oracles import Oracle
from tests.simulation.users import Exchange, Operator

if TYPE_CHECKING:
    from tests.simulation.engine import Engines
    from tests.simulation.node import Node
    from tests.simulation.world import World

MARGIN = 1.5
"""Seconds in which a change of the engine, and the way to a gateway, are over."""
PROBE_SECONDS = 3.0
"""Time from a request for /ready to its questions, which each node asks for itself."""
TAKEOVER_SECONDS = 3.5
"""Time from the end of a process to another one's question: the lease of its claim, a renewal, and the network."""
WAKE_SECONDS = 0.3
"""Time in which a message of the engine, and the board, reach a node over connections that are not slow."""
RENEW_SECONDS = 1.0
"""The same if the message is lost."""
REGISTER_SECONDS = 12.0
"""Time between two commands of a node without requests that tell it whether the engine accepts writes."""
CONNECT_SECONDS = 15.0
"""Time from the recovery of the engine to the connection of each node."""

Key = tuple[str, str]


class SharedOracle(Oracle):
    """What the rules of several nodes have in common."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        assert world.engines is not None
        self.engines: Engines = world.engines
        self.probed_at: dict[Node, float] = {}
        """When each node was last requested to find out whether it is ready."""

    def sent(self, exchange: Exchange) -> None:
        if isinstance(exchange.user, Operator) and exchange.path == "/ready":
            self.probed_at[exchange.node] = self.now

    def is_well(self, since: float, *nodes: Node) -> bool:
        """Return whether nodes were served well by the engine since a time, and a little before.

        A process that waits for its disk meanwhile finds that the engine has not replied in time.
        """
        since -= MARGIN
        is_held = self.world.disk.slow_until >= since
        has_lost = self.engines.lost_data_at >= since
        return not (is_held or has_lost) and all(self.engines.well_since(node) < since for node in nodes)

    def waiting(self, key: Key) -> Iterator[Exchange]:
        """Yield the requests for a board that processes which go on have not responded to."""
        for session in self.world.sessions:
            if len(session.pending) != 1 or session.wire.paused or not session.node.is_up:
                continue
            exchange = session.pending[0]
            is_same = (exchange.module, exchange.stop) == key and exchange.epoch == exchange.node.epoch
            if is_same and not exchange.books.is_unclean and session.wire.sock.latency < WAKE_SECONDS / 5:
                yield exchange

    def is_alive(self, question: Question) -> bool:
        """Return whether the process that has sent a question runs, and is not about to stop."""
        return question.node.epoch == question.epoch and question.node.is_up


class SharedBoards(Boards, SharedOracle):
    """The rules of Boards for each process, and for all of them together while the engine serves them well.

    A board is older than another one if it was asked for earlier, and received earlier by more than MARGIN. A process
    never serves an older board after a newer one. So a client may see an older board only from another process, and
    no longer than that serves it by its Age: after 60 s it fetches the newest one. A board that a process has fetched
    (a miss) is not older than any that a process had received before the request.
    """

    TRANSIT = 1.5  # a callback that is passed on, over a new connection with 0.3 s each way, and the engine

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.newest_of: dict[tuple[str, str, int], tuple[Answer, float]] = {}
        """The newest board of each process that has asked for it itself, and when it must have had it."""
        self.served: dict[tuple[str, str, int], tuple[Answer, float]] = {}
        """The newest board that each process has served, and when."""
        self.unclaimed: set[Question] = set()
        """Questions of nodes that were not served well by the engine."""

    def asked(self, gateway: Gateway, question: Question) -> None:
        super().asked(gateway, question)
        if not self.is_well(question.at, question.node):
            self.unclaimed.add(question)

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        receiver = next((node for node in self.world.nodes if node.epoch == epoch), None)
        if receiver is None or self.world.step_slack(question.at) or self.is_cut_off(status, epoch):
            return
        if kind == "unsolicited" and self.engines.mode == "garbage":
            return  # after "*1", the reply to an offer may be that to the next command
        is_shared = question.epoch != epoch
        if is_shared and kind in ("", "chopped", "repeat", "numberless"):
            nodes = (receiver, question.node) if self.is_alive(question) else (receiver,)
            is_claimed = self.is_alive(question) or question not in self.unclaimed
            if status != 200 and is_claimed and sent - question.at < LATE - 10 and self.is_well(question.at, *nodes):
                text = f"an answer {sent - question.at:.1f} s after the question of another node got {status}"
                self.found(f"/{gateway.module}/{question.code}: {text}")
        super().acknowledged(gateway, answer, kind, status, sent, question, epoch)
        if answer is None or status != 200 or answer.question is None or kind not in ("", "chopped"):
            return
        key = gateway.module, answer.code
        if self.is_tainted(key):
            return
        newest = self.newest.get(key)
        if newest is None or question.index > newest[0]:
            self.newest[key] = question.index, answer
        waits = sent - question.at < DEADLINE - MARGIN and self.is_well(question.at, question.node, receiver)
        asked = [other.index for other in gateway.questions[question.code] if other.epoch == question.epoch]
        # A later question may have ended with a board of another node, which is kept.
        if not waits and (is_shared or max(asked) > question.index):
            return
        if is_shared:
            self.world.scheduler.after(RENEW_SECONDS, self.note_passed_on, key, answer, question, receiver)
        else:
            self.note_newest(key, answer, question)
        for seconds in (WAKE_SECONDS, RENEW_SECONDS):
            self.world.scheduler.after(seconds, self.check_shared_waiters, key, sent, seconds)

    def note_passed_on(self, key: Key, answer: Answer, question: Question, receiver: Node) -> None:
        """Note a board that another process has put into the engine, unless that has lost it since."""
        if self.is_well(question.at, question.node, receiver):
            self.note_newest(key, answer, question)

    def note_newest(self, key: Key, answer: Answer, question: Question) -> None:
        """Note the newest board of the process that has asked."""
        own = self.newest_of.get((*key, question.epoch))
        if own is None or is_older(own[0], answer):
            self.newest_of[*key, question.epoch] = answer, self.now

    def is_matched_by_stop(self, gateway: Gateway, question: Question, epoch: int) -> bool:
        # The claim in the engine is that of the last question. Nodes use the same numbers.
        questions = gateway.questions[question.code]
        is_other = question.epoch != epoch and questions[-1] is not question
        return is_other or any(
            other.number == question.number and other is not question and abs(question.at - other.at) < 2 * LATE
            for other in questions
        )

    def check_shared_waiters(self, key: Key, sent: float, seconds: float) -> None:
        """All who waited on any node have a board soon after it was acknowledged."""
        is_fast = self.engines.heard_since < sent - MARGIN and self.engines.slowest < WAKE_SECONDS / 6
        if not (is_fast or seconds == RENEW_SECONDS) or self.world.step_slack(sent) or self.world.disk.slack:
            return
        for exchange in self.waiting(key):
            if exchange.sent_at < sent and self.is_well(exchange.sent_at, *self.world.nodes):
                self.found(f"{exchange}: waits on {exchange.node.host}, though any node has it for {seconds} s")

    def check_age(self, gateway: Gateway, key: Key, exchange: Exchange, answer: Answer) -> None:
        if not answer.was_repeated:  # another node may have received it again, as the board of a later question
            super().check_age(gateway, key, exchange, answer)

    def refreshes_since(self, gateway: Gateway, exchange: Exchange) -> float:
        # The callback may reach a node that, without the engine, does not know this one.
        engine_since = max(self.engines.lost_data_at, *map(self.engines.well_since, self.world.nodes))
        return max(super().refreshes_since(gateway, exchange), engine_since + 13)

    def check_order(self, key: Key, exchange: Exchange, answer: Answer) -> None:
        place = *key, exchange.epoch
        if answer.question is None or answer.was_repeated or self.is_tainted(key):
            return
        what = f"{exchange}: {exchange.node.host} has answer {answer.serial}"
        served = self.served.get(place)
        if served is not None and is_older(answer, served[0]) and served[1] < exchange.sent_at:
            self.found(f"{what}, after {served[0].serial}")
        if served is None or is_older(served[0], answer):
            self.served[place] = answer, self.now
        own = self.newest_of.get(place)
        if own is not None and is_older(answer, own[0]) and own[1] < exchange.sent_at:
            self.found(f"{what}, though {own[0].serial} was accepted {exchange.sent_at - own[1]:.1f} s before")
        newest = self.fresh_in_engine(key, exchange)
        is_fetched = (exchange.header("cache-status") or "").startswith("govi-cache; fwd=miss")
        if newest is not None and is_fetched and is_older(answer, newest):
            self.found(f"{what}, which it has fetched, though the engine has {newest.serial}")

    def fresh_in_engine(self, key: Key, exchange: Exchange) -> Answer | None:
        """Return the newest board that was received, if the engine had it when the request was sent."""
        newest = self.newest.get(key)
        if newest is None or newest[1].accepted_at is None:
            return None
        accepted_at = newest[1].accepted_at
        is_fresh = accepted_at < exchange.sent_at - MARGIN and self.now - accepted_at < FRESH - 1
        question = newest[1].question
        since = accepted_at if question is None else question.at  # when it was claimed in the engine
        if question is not None and any(
            other.epoch == question.epoch and question.index < other.index and other.at < accepted_at
            for other in self.world.gateways[key[0]].questions[key[1]]
        ):
            return None  # a later question may have ended with another board, which is kept
        return newest[1] if is_fresh and self.is_well(since - MARGIN, *self.world.nodes) else None

    def check_error(self, gateway: Gateway, key: Key, exchange: Exchange) -> None:
        if not self.world.step_slack(exchange.sent_at - 15):
            own = self.newest_of.get((*key, exchange.epoch))
            is_old = own is None or self.now - own[0].sent_at > STALE - 1 or self.world.stepped_since(own[0].sent_at)
            if own is not None and own[1] < exchange.sent_at and not is_old:
                self.found(f"{exchange}: {exchange.status}, though {exchange.node.host} has answer {own[0].serial}")
            newest = self.fresh_in_engine(key, exchange)
            if newest is not None and not self.has_joined_probe(gateway, key, exchange, newest):
                self.found(f"{exchange}: {exchange.status}, though the engine has answer {newest.serial}")
        # The callback for a node that is cut off ends what the engine knows of an earlier question.
        is_cut_off = self.engines.master.isolated == exchange.node.host
        questions = gateway.questions.get(key[1], [])
        answers = questions[-1].answers if questions else []
        was_killed = any(not node.is_up or node.started_at > exchange.sent_at - 15 for node in self.world.nodes)
        is_lost = was_killed and bool(answers) and all(answer.status is None for answer in answers)
        if self.engines.is_steady() and not is_cut_off and not is_lost:
            super().check_error(gateway, key, exchange)

    def has_joined_probe(self, gateway: Gateway, key: Key, exchange: Exchange, newest: Answer) -> bool:
        """Return whether a client may have joined a question with which its node finds out whether it is ready.

        That is sent though the engine has a board.
        """
        was_asked = any(
            question.epoch == exchange.epoch and question.at > (newest.accepted_at or 0)
            for question in gateway.questions.get(key[1], ())
        )
        return was_asked or self.now - self.probed_at.get(exchange.node, -inf) < DEADLINE + PROBE_SECONDS

    def stored(self, key: Key, exchange: Exchange) -> Answer | None:
        return None  # see above: a late answer that another node has received is in the engine only

    def stopped(self, node: Node, clean: bool) -> None:
        for table in (self.newest_of, self.served, self.last_stale):
            for place in [place for place in table if place[2] == node.epoch]:
                del table[place]


def is_older(answer: Answer, other: Answer) -> bool:
    """Return whether a board is older than another one for the same stop."""
    first, second = answer.question, other.question
    if first is None or second is None or first.index >= second.index:
        return False
    # A node to which a callback is passed on receives it up to so much later, and cannot know the order.
    return (answer.accepted_at or inf) + MARGIN < other.sent_at


class OneQuestionForAll(SharedOracle):
    """At most one question for a stop is under way on all nodes, and none for a board that the engine has.

    Except for those with which each node finds out whether it is ready, and those of a process that has ended.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.probes: set[Question] = set()
        """The questions with which nodes find out whether they are ready."""
        self.answered: dict[Key, tuple[float, Question]] = {}
        """When the last board was accepted."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        if answer is None or status != 200 or kind not in ("", "chopped") or gateway.number is not None:
            return  # without its number, it may be taken for a repeated one
        if question.ended_at is not None and question.ended_at < answer.sent_at:  # by something in its place
            return
        others = [other for other in gateway.questions[question.code] if other.epoch != question.epoch]
        if any(other.number == question.number and abs(other.at - question.at) < 2 * LATE for other in others):
            return  # nodes use the same numbers: taken for a repeated one after a late answer to the other
        key = gateway.module, answer.code
        if key not in self.answered or self.answered[key][1].index < question.index:  # a later one is not replaced
            self.answered[key] = self.now, question

    def asked(self, gateway: Gateway, question: Question) -> None:
        node, what = question.node, f"/{gateway.module}/{question.code}: {question.node.host} asks"
        is_probe = self.now - self.probed_at.get(node, -inf) < PROBE_SECONDS
        if is_probe:
            self.probes.add(question)
        if is_probe or self.world.step_slack(self.now - 2 * FRESH):
            return
        answered_at, answered = self.answered.get((gateway.module, question.code), (-inf, question))
        for other in gateway.questions[question.code]:
            is_pending = other.ended_at is None and self.now - other.at < DEADLINE - 1 and answered_at < other.at
            if other is question or other in self.probes or not is_pending or not self.is_alive(other):
                continue
            # Nothing can be claimed while the engine has another program's value in place of the board.
            is_well = not self.engines.was_spoiled and self.is_well(other.at, node, other.node)
            if other.epoch == question.epoch or is_well:
                self.found(f"{what} {self.now - other.at:.3f} s after a pending question of {other.node.host}")
        is_fresh = MARGIN < self.now - answered_at < FRESH - 5 and self.is_alive(answered)
        if is_fresh and answered.epoch != question.epoch and self.is_well(answered.at, node, answered.node):
            self.found(f"{what}, though a board was accepted {self.now - answered_at:.1f} s before")


class Takeovers(SharedOracle):
    """When a process has ended, other ones ask its questions again for their own clients."""

    def stopped(self, node: Node, clean: bool) -> None:
        others = [other for other in self.world.nodes if other is not node]
        for gateway in self.world.gateways.values():
            for code, questions in gateway.questions.items():
                question = questions[-1]
                is_pending = question.ended_at is None and self.now - question.at < DEADLINE
                if is_pending and question.epoch == node.epoch and self.is_well(question.at, *others):
                    self.world.scheduler.after(TAKEOVER_SECONDS, self.check, gateway, code, question, self.now)

    def check(self, gateway: Gateway, code: str, question: Question, ended_at: float) -> None:
        if gateway.questions[code][-1] is not question or question.ended_at or self.world.step_slack(ended_at):
            return
        if any(
            other is not question
            and other.ended_at is None
            and self.now - other.at < DEADLINE + MARGIN
            and self.is_alive(other)
            for other in gateway.questions[code]
        ):
            return  # they wait for that one
        for exchange in self.waiting((gateway.module, code)):
            if exchange.sent_at < ended_at and self.is_well(question.at, exchange.node):
                self.found(f"{exchange}: waits for {question.node.host}, which ended {TAKEOVER_SECONDS} s before")


class SharedFailures(SharedOracle):
    """A question without an answer ends the waits of the clients of all nodes at its deadline."""

    def asked(self, gateway: Gateway, question: Question) -> None:
        self.world.scheduler.after(DEADLINE + MARGIN, self.check, gateway, question)

    def check(self, gateway: Gateway, question: Question) -> None:
        if question.ended_at is not None or not self.is_alive(question) or self.world.step_slack(question.at):
            return
        if gateway.questions[question.code][-1] is not question:
            return  # such as that of a node that finds out whether it is ready
        for exchange in self.waiting((gateway.module, question.code)):
            waits = question.at + MARGIN < exchange.sent_at < question.at + DEADLINE - MARGIN
            if waits and self.is_well(question.at, exchange.node, question.node):
                self.found(f"{exchange}: still waits for the question of {question.node.host}, which has failed")


class Claims(SharedOracle):
    """When the world is quiet, the engine has no claim of a process that runs."""

    def quiet(self) -> None:
        for key, name, claimed_at in self.engines.claims():
            epoch = self.engines.names.get(name)
            if epoch is None:
                if not self.engines.was_spoiled:
                    self.found(f"{key!r} is claimed by {name!r}, which is no process")
                continue
            node = next((node for node in self.world.nodes if node.epoch == epoch), None)
            if node is not None and self.is_well(claimed_at, node) and not self.world.step_slack(claimed_at):
                self.found(f"{key!r} is still claimed by {node.host}, {self.now - claimed_at:.1f} s ago")


class Sharing(SharedOracle):
    """Each node is connected to the engine soon after that is well, and its metrics say so."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.lost_at: dict[Node, float] = {}

    def tick(self) -> None:
        if self.is_well(self.now, *self.world.nodes):
            self.engines.met_at = self.now
        for node in self.world.nodes:
            is_steady = self.world.network.slowest < 0.1 and not self.world.step_slack(self.now - CONNECT_SECONDS)
            if not node.is_up or not is_steady or self.engines.mode or self.engines.is_connected(node):
                self.lost_at[node] = self.now
            elif self.now - self.lost_at.get(node, self.now) > CONNECT_SECONDS:
                self.found(f"{node.host} is not connected to the engine, which is well")

    def completed(self, exchange: Exchange) -> None:
        if exchange.path != "/metrics" or not isinstance(exchange.user, Operator) or not exchange.node.is_up:
            return
        assert exchange.response is not None
        match = re.search(rb"^govi_sharing ([01])\.0$", exchange.response.body, re.MULTILINE)
        if match is None:
            self.found("/metrics lacks govi_sharing")
        elif match[1] == b"0" and self.is_well(self.now - REGISTER_SECONDS, exchange.node):
            self.found(f"{exchange.node.host}: govi_sharing is 0, though the engine is well")


SHARED_ORACLES = (Takeovers, SharedFailures, Claims, Sharing)
