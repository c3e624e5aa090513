"""The rules of several nodes that share boards and questions through an engine.

A node is served well by the engine since it has logged in to the master, and that has not misbehaved since. The
promises that need the engine hold from a second later on, and not across a loss of its data.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING

from tests.simulation.gateway import DEADLINE, LATE, Answer, Gateway, Question
from tests.simulation.oracles import FRESH, STALE, Boards, Oracle
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
CONNECT_SECONDS = 15.0
"""Time from the recovery of the engine to the connection of each node."""

Key = tuple[str, str]


class SharedOracle(Oracle):
    """What the rules of several nodes have in common."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        assert world.engines is not None
        self.engines: Engines = world.engines

    def is_well(self, since: float, *nodes: Node) -> bool:
        """Return whether nodes were served well by the engine since a time, and a little before."""
        since -= MARGIN
        return self.engines.lost_data_at < since and all(self.engines.well_since(node) < since for node in nodes)

    def is_alive(self, question: Question) -> bool:
        """Return whether the process that has sent a question runs, and is not about to stop."""
        return question.node.epoch == question.epoch and question.node.is_up


class SharedBoards(Boards, SharedOracle):
    """The rules of Boards for each process, and for all of them together while the engine serves them well.

    A process never serves an older board after a newer one; so a client may see an older board only from another
    process, and no longer than that serves it by its Age: after 60 s it fetches the newest one. A board that a process
    has fetched (a miss) is not older than any that a process had received before the request.
    """

    TRANSIT = 0.5

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.newest_of: dict[tuple[str, str, int], tuple[int, Answer, float]] = {}
        """The newest board of each process that has asked for it itself, and when it must have had it."""
        self.served: dict[tuple[str, str, int], tuple[int, float]] = {}
        """The newest board that each process has served: the index of its question, and when."""

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        receiver = next((node for node in self.world.nodes if node.epoch == epoch), None)
        if receiver is None or self.world.step_slack(question.at):
            return
        is_shared = question.epoch != epoch
        if is_shared and kind in ("", "chopped", "repeat", "numberless"):
            nodes = (receiver, question.node) if self.is_alive(question) else (receiver,)
            if status != 200 and sent - question.at < LATE - 10 and self.is_well(question.at, *nodes):
                key = f"/{gateway.module}/{question.code}"
                self.found(
                    f"{key}: an answer {sent - question.at:.1f} s after the question of another node got {status}"
                )
        super().acknowledged(gateway, answer, kind, status, sent, question, epoch)
        if answer is None or status != 200 or answer.question is None or kind not in ("", "chopped"):
            return
        key = gateway.module, answer.code
        if self.is_tainted(key):
            return
        newest = self.newest.get(key)
        if newest is None or question.index > newest[0]:
            self.newest[key] = question.index, answer
        own = self.newest_of.get((*key, question.epoch))
        if own is None or question.index > own[0]:
            self.newest_of[*key, question.epoch] = (
                question.index,
                answer,
                self.now + (RENEW_SECONDS if is_shared else 0),
            )
        for seconds in (WAKE_SECONDS, RENEW_SECONDS):
            self.world.scheduler.after(seconds, self.check_shared_waiters, key, sent, seconds)

    def is_matched_by_stop(self, gateway: Gateway, question: Question, epoch: int) -> bool:
        # The claim in the engine is that of the last question.
        return question.epoch != epoch and gateway.questions[question.code][-1] is not question

    def check_shared_waiters(self, key: Key, sent: float, seconds: float) -> None:
        """All who waited on any node have a board soon after it was acknowledged."""
        if seconds < RENEW_SECONDS and self.engines.heard_since > sent - MARGIN:
            return
        for session in self.world.sessions:
            if len(session.pending) != 1 or session.wire.paused or session.wire.sock.latency > WAKE_SECONDS / 5:
                continue
            exchange = session.pending[0]
            waits = (exchange.module, exchange.stop) == key and exchange.sent_at < sent - 0.5
            if not waits or exchange.books.is_unclean or self.world.step_slack(sent) or not session.node.is_up:
                continue
            if session.node.epoch == exchange.epoch and self.is_well(exchange.sent_at, *self.world.nodes):
                self.found(f"{exchange}: waits on {session.node.host}, though any node has it for {seconds} s")

    def check_order(self, key: Key, exchange: Exchange, answer: Answer) -> None:
        question, place = answer.question, (*key, exchange.epoch)
        if question is None or self.is_tainted(key):
            return
        before = self.served.get(place, (0, 0.0))
        if question.index < before[0] and before[1] < exchange.sent_at:
            self.found(
                f"{exchange}: {exchange.node.host} has answer {answer.serial} of question {question.index}, after "
                f"one of question {before[0]}"
            )
        if question.index > before[0]:
            self.served[place] = question.index, self.now
        own = self.newest_of.get(place)
        if own is not None and question.index < own[0] and own[2] < exchange.sent_at:
            self.found(
                f"{exchange}: {exchange.node.host} has answer {answer.serial}, though answer {own[1].serial} to its "
                f"later question was accepted {exchange.sent_at - own[2]:.1f} s before"
            )
        newest = self.newest.get(key)
        is_fetched = (exchange.header("cache-status") or "").startswith("govi-cache; fwd=miss")
        if newest is None or not is_fetched or question.index >= newest[0]:
            return
        accepted_at = newest[1].accepted_at or inf
        if accepted_at < exchange.sent_at - MARGIN and self.now - accepted_at < FRESH - 1:
            if self.is_well(accepted_at - MARGIN, *self.world.nodes):
                self.found(
                    f"{exchange}: {exchange.node.host} has fetched answer {answer.serial}, though answer "
                    f"{newest[1].serial} was accepted {exchange.sent_at - accepted_at:.1f} s before"
                )

    def check_error(self, gateway: Gateway, key: Key, exchange: Exchange) -> None:
        if not self.world.step_slack(exchange.sent_at - 15):
            own, newest = self.newest_of.get((*key, exchange.epoch)), self.newest.get(key)
            if own is not None and own[2] < exchange.sent_at and self.now - own[1].sent_at < STALE - 1:
                self.found(f"{exchange}: {exchange.status}, though {exchange.node.host} has answer {own[1].serial}")
            accepted_at = (newest[1].accepted_at or inf) if newest is not None else inf
            is_fresh = accepted_at < exchange.sent_at - MARGIN and self.now - accepted_at < FRESH - 1
            if newest is not None and is_fresh and self.is_well(accepted_at - MARGIN, *self.world.nodes):
                self.found(f"{exchange}: {exchange.status}, though the engine has answer {newest[1].serial}")
        super().check_error(gateway, key, exchange)

    def stopped(self, node: Node, clean: bool) -> None:
        for table in (self.newest_of, self.served, self.last_stale):
            for place in [place for place in table if place[2] == node.epoch]:
                del table[place]


class OneQuestionForAll(SharedOracle):
    """At most one question for a stop is under way on all nodes, and none for a board that the engine has.

    Except for those with which each node finds out whether it is ready, and those of a process that has ended.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.probed_at: dict[Node, float] = {}
        self.answered: dict[Key, tuple[float, Question]] = {}
        """When the last board was accepted."""

    def sent(self, exchange: Exchange) -> None:
        if isinstance(exchange.user, Operator) and exchange.path == "/ready":
            self.probed_at[exchange.node] = self.now

    def acknowledged(
        self, gateway: Gateway, answer: Answer | None, kind: str, status: int, sent: float, question: Question,
        epoch: int,
    ) -> None:  # fmt: skip
        if answer is not None and status == 200 and kind in ("", "chopped"):
            self.answered[gateway.module, answer.code] = self.now, question

    def asked(self, gateway: Gateway, question: Question) -> None:
        node, what = question.node, f"/{gateway.module}/{question.code}: {question.node.host} asks"
        is_probe = self.now - self.probed_at.get(node, -inf) < PROBE_SECONDS
        if is_probe or self.world.step_slack(self.now - 2 * FRESH):
            return
        for other in gateway.questions[question.code]:
            is_pending = other.ended_at is None and self.now - other.at < DEADLINE - 1
            if other.epoch != question.epoch and is_pending and self.is_alive(other):
                if self.is_well(other.at, node, other.node):
                    self.found(f"{what} {self.now - other.at:.3f} s after a pending question of {other.node.host}")
        answered_at, answered = self.answered.get((gateway.module, question.code), (-inf, question))
        if MARGIN < self.now - answered_at < FRESH - MARGIN and answered.epoch != question.epoch:
            if self.is_well(answered.at, node, answered.node) and self.is_alive(answered):
                self.found(f"{what}, though a board was accepted {self.now - answered_at:.1f} s before")


class Takeovers(SharedOracle):
    """When a process has ended, other ones ask its questions again for their own clients."""

    def stopped(self, node: Node, clean: bool) -> None:
        others = [other for other in self.world.nodes if other is not node]
        for gateway in self.world.gateways.values():
            for code, questions in gateway.questions.items():
                question = questions[-1]
                if question.epoch == node.epoch and question.ended_at is None and self.now - question.at < DEADLINE:
                    if self.is_well(question.at, *others):
                        self.world.scheduler.after(TAKEOVER_SECONDS, self.check, gateway, code, question, self.now)

    def check(self, gateway: Gateway, code: str, question: Question, ended_at: float) -> None:
        if gateway.questions[code][-1] is not question or question.ended_at is not None:
            return
        for session in self.world.sessions:
            if len(session.pending) != 1 or session.wire.paused or not session.node.is_up:
                continue
            exchange = session.pending[0]
            waits = (exchange.module, exchange.stop) == (gateway.module, code) and exchange.sent_at < ended_at
            is_same = session.node.epoch == exchange.epoch != question.epoch
            if waits and is_same and not exchange.books.is_unclean and not self.world.step_slack(ended_at):
                if self.is_well(question.at, session.node):
                    self.found(f"{exchange}: waits for {question.node.host}, which ended {TAKEOVER_SECONDS} s before")


class SharedFailures(SharedOracle):
    """A question without an answer ends the waits of the clients of all nodes at its deadline."""

    def asked(self, gateway: Gateway, question: Question) -> None:
        self.world.scheduler.after(DEADLINE + MARGIN, self.check, gateway, question)

    def check(self, gateway: Gateway, question: Question) -> None:
        if question.ended_at is not None or not self.is_alive(question) or self.world.step_slack(question.at):
            return
        questions = gateway.questions[question.code]
        for session in self.world.sessions:
            if len(session.pending) != 1 or session.wire.paused or not session.node.is_up:
                continue
            exchange = session.pending[0]
            waits = (exchange.module, exchange.stop) == (gateway.module, question.code)
            if not waits or exchange.books.is_unclean or session.node.epoch != exchange.epoch:
                continue
            if not question.at + MARGIN < exchange.sent_at < question.at + DEADLINE - MARGIN:
                continue
            # A later question, such as that of a node that finds out whether it is ready, has its own deadline.
            if questions[-1] is question and self.is_well(question.at, session.node, question.node):
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
        elif match[1] == b"0" and self.is_well(self.now - 5, exchange.node):
            self.found(f"{exchange.node.host}: govi_sharing is 0, though the engine is well")


SHARED_ORACLES = (OneQuestionForAll, Takeovers, SharedFailures, Claims, Sharing)
