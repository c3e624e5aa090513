"""The rules of the statistics log, and of the metrics, which must agree with it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.simulation.gateway import Answer, Gateway, Question
from tests.simulation.oracles import Oracle
from tests.simulation.users import Books, Exchange

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

READ_SECONDS = 5
"""Time between two looks at the statistics log."""
ROTATE_BYTES = 50_000
"""Size at which the statistics log is rotated."""
KEEP = 3
"""The number of rotated statistics logs that remain."""


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
