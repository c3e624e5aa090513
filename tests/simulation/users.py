"""The users of the world: displays, browsers, slow readers, clients that hang up, hostile ones, and operators."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.http_client import Message, Reader, Wire

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

REQUEST_SECONDS = 13.0
"""The deadline of a request, and of an idle connection."""
LINGER_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class Exchange:
    """A request of a user, and its response. Times are steady."""

    user: User
    method: str
    path: str
    fields: dict[str, str]
    sent_at: float
    node: Node
    epoch: int
    """The process that it was sent to."""
    response: Message | None = None
    ended_at: float | None = None
    module: str = ""
    stop: str = ""
    is_alone: bool = False
    """Whether it was sent after the response to the one before."""
    known: Exchange | None = None
    """The earlier exchange whose representation the user has, of a conditional request."""
    was_cut: bool = False
    """Whether the server has accepted the request, and ended its connection without a response."""

    @property
    def books(self) -> Books:
        """What its user has seen of its node."""
        return self.user.books[self.node]

    def header(self, name: str) -> str | None:
        assert self.response is not None
        return self.response.fields.get(name)

    @property
    def cache_result(self) -> str:
        """The cache result that Cache-Status tells of (RFC 9211); "" for modules that do not send it."""
        if self.module in ("board", "events") or self.status == 406:
            return ""
        status = self.header("cache-status") or ""
        if "fwd=miss" in status:
            return "joined" if "collapsed" in status else "miss"
        return "none" if not status else "stale" if "ttl=-" in status else "hit"

    @property
    def status(self) -> int:
        assert self.response is not None
        return self.response.status

    def __str__(self) -> str:
        return f"{self.user.name}: {self.method} {self.path}"


@dataclass(slots=True)
class Books:
    """What a user has seen since the books were opened: what the statistics log must say as well."""

    connections: int = 0
    """Accepted by the program."""
    complete: Counter[tuple[str, str, int, int, str]] = field(default_factory=Counter)
    """Exchanges: method, path, status, bytes of the body and cache result."""
    incomplete: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests without a complete response: method and path."""
    is_unclean: bool = False
    """Whether it sent what is no request."""


class Session:
    """A connection of a user. owed_at: when the server must have done something, None if it owes nothing."""

    def __init__(self, user: User, port: int = 8080) -> None:
        self.user = user
        world = user.world
        self.world = world
        self.node = user.node
        self.epoch = self.node.epoch
        self.books = user.books[self.node]  # those of this process, of which responses may arrive after its end
        self.pending: deque[Exchange] = deque()
        self.reader = Reader(
            self._responded, self._streamed, lambda: self.pending[0].method if self.pending else "GET"
        )
        self.wire = Wire.connect(world.network, user.host, (self.node.host, port))
        self.wire.on_open = self._opened
        self.wire.on_data = self._received
        self.wire.on_end = self._ended
        self.owed_at: float | None = None
        self.owed = "an end of the connection"
        self.on_response: Callable[[Exchange], object] = lambda exchange: None
        self.on_open: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None
        self.is_streaming = False
        self.is_kept_open = False
        """Whether the user does not end its side when the server ends the connection."""
        self.received = 0
        self.stops_at: int | None = None
        """The number of received bytes at which the user hangs up."""
        world.sessions[self] = None

    @property
    def is_usable(self) -> bool:
        return not self.wire.closed and not self.wire.ended

    def owe(self, what: str, seconds: float = REQUEST_SECONDS) -> None:
        """Expect something from the server within a time."""
        self.owed = what
        self.owed_at = self.world.scheduler.now + seconds

    def request(self, method: str, path: str, fields: dict[str, str] | None = None, body: bytes = b"") -> Exchange:
        """Send a request."""
        fields = fields or {}
        exchange = self.begin(method, path, fields)
        lines = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "departures.example"} | fields).items())
        self.wire.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return exchange

    def begin(self, method: str, path: str, fields: dict[str, str]) -> Exchange:
        """Note a request, which the caller sends."""
        exchange = Exchange(self.user, method, path, fields, self.world.scheduler.now, self.node, self.epoch)
        segments = path.partition("?")[0].split("/")
        exchange.module, exchange.stop = segments[1], segments[2] if len(segments) > 2 else ""
        if not self.pending:
            exchange.is_alone = True
            self.owe(f"a response to {method} {path}")
        self.pending.append(exchange)
        self.world.event("request", f"{self.user.name} {method} {path}")
        self.world.sent(exchange)
        return exchange

    def _opened(self) -> None:
        self.epoch = self.node.epoch  # the process may have ended, and started again, while it connected
        for exchange in self.pending:
            exchange.epoch = self.epoch
        if self.owed_at is None:
            self.owe("a response or an end")
        self.on_open()

    def _received(self, data: bytes) -> None:
        world = self.world
        world.received(self.user, data)
        self.received += len(data)
        if self.stops_at is not None and self.received >= self.stops_at:
            self.close(abort=True)
            return
        self.reader.feed(data)

    def _responded(self, message: Message) -> None:
        if not self.pending:
            if message.status in (406, 408, 429, 503) or self.books.is_unclean:
                return
            self.world.found("responses", f"{self.user.name}: a response without a request: {message.first_line}")
            return
        exchange = self.pending.popleft()
        exchange.response = message
        exchange.ended_at = self.world.scheduler.now
        if self.pending:
            self.owe(f"a response to {self.pending[0].path}")
        else:
            self.owe("an end of the idle connection")
        books = self.user.books[self.node]
        if self.epoch in self.world.killed_epochs:
            return
        if message.status == 406 and self.world.step_slack(exchange.sent_at):
            books.is_unclean = True  # the deadline has passed before the request was read
        path = exchange.path.partition("?")[0]
        books.complete[exchange.method, path, message.status, message.size, exchange.cache_result] += 1
        self.world.completed(exchange)
        self.on_response(exchange)

    def _streamed(self, message: Message, data: bytes) -> None:
        self.is_streaming = True
        self.owed_at = None
        self.user.streamed(self, message, data)

    def _ended(self) -> None:
        if self.wire.end != "refused" and self.pending and not self.is_streaming and not self.wire.paused:
            # A request may cross with the end of an idle connection.
            first = self.pending[0]
            first.was_cut = first.is_alone and self.world.scheduler.now - first.sent_at > 1
        if self.is_streaming and self.pending and self.wire.end == "eof":
            self.reader.end()
        if self.is_kept_open and self.wire.end == "eof":
            self.world.scheduler.after(LINGER_SECONDS + 1.0, self._check_reset)
        else:
            self.close()

    def _check_reset(self) -> None:
        """The server does not wait for ever for the other end of a connection that it has ended."""
        peer = self.wire.sock.peer
        if (
            peer is not None
            and not peer.closed
            and not self.wire.closed
            and not self.world.step_slack(self.world.scheduler.now)
        ):
            self.world.found("deadlines", f"{self.user.name} keeps a connection open that the server has ended")
        self.close()

    def close(self, abort: bool = False) -> None:
        """End the connection."""
        if self in self.world.sessions:
            del self.world.sessions[self]
            for exchange in self.pending:
                if self.epoch in self.world.killed_epochs:
                    continue
                self.user.books[self.node].incomplete[exchange.method, exchange.path.partition("?")[0]] += 1
                self.world.abandoned(exchange)
            self.pending.clear()
            self.owed_at = None
            (self.wire.abort if abort else self.wire.close)()
            self.on_end()


class User:
    """A user on a machine, and so in a network, of its own."""

    interval = (30.0, 80.0)
    """Seconds between two requests."""

    def __init__(self, world: World, node: Node, number: int) -> None:
        self.world = world
        self.node = node
        self.number = number
        self.name = f"{type(self).__name__.lower()} {number}"
        self.host = f"10.{100 + number // 250}.{number % 250}.1"
        self.client = f"10.{100 + number // 250}.{number % 250}.0/24"
        self.random = Random(f"{world.seed}/user/{number}")
        self.books = {node: Books() for node in world.nodes}
        self.session: Session | None = None
        self.last_step = -1e9
        self.path = ""
        self.prepare()
        self.next(self.random.random() * self.interval[1])

    def prepare(self) -> None:
        """Choose habits."""

    def next(self, delay: float | None = None) -> None:
        self.world.scheduler.after(self.random.uniform(*self.interval) if delay is None else delay, self.act)

    def act(self) -> None:
        """Do something, unless the world is quiet."""
        if self.world.is_quiet:
            self.next()
            return
        self.node = self.choose_node()
        self.use()

    def choose_node(self) -> Node:
        """Return the node for the next connection."""
        return self.world.balancer.choose(self.name, 8080, self.node)

    def use(self) -> None:
        """Do something; next() must be called when it is done."""
        raise NotImplementedError

    def streamed(self, session: Session, message: Message, data: bytes) -> None:
        """Receive a part of a stream."""

    def quieten(self) -> None:
        """The world becomes quiet: end what has no end of its own."""
        if self.session is not None and self.session.is_streaming:
            self.session.close()


class Display(User):
    """Polls one path, or a few, and understands conditional requests, gzip and HEAD as its habits are."""

    def prepare(self) -> None:
        random = self.random
        self.paths = self.world.display_paths(random)
        self.gzip = random.random() < 0.4
        self.conditional = random.random() < 0.4
        self.heads = 0.1 if random.random() < 0.3 else 0.0
        self.by_date = Random(f"{self.world.seed}/dates/{self.number}").random() < 0.5
        self.closes = random.random() < 0.3
        if random.random() < 0.2:
            self.interval = (3.0, 12.0)
        self.known: dict[str, Exchange] = {}
        self.bodies = Random(f"{self.world.seed}/bodies/{self.number}")
        self.is_waiting = False

    def use(self) -> None:
        random = self.random
        session = self.session
        if session is None or not session.is_usable:
            self.session = session = Session(self)
            session.on_end = partial(self._ended, session)
        path = random.choice(self.paths)
        fields = {"Accept-Encoding": "gzip"} if self.gzip else {}
        known = self.known.get(path)
        if self.conditional and known is not None and known.header("last-modified") and self.by_date:
            fields["If-Modified-Since"] = known.header("last-modified") or ""
        elif self.conditional and known is not None and known.header("etag"):
            fields["If-None-Match"] = known.header("etag") or ""
        if self.closes:
            fields["Connection"] = "close"
        if path.startswith("/board/") and random.random() < 0.8:
            fields["Accept"] = "application/json"
        method = "HEAD" if random.random() < self.heads else "GET"
        session.on_response = self._responded
        self.is_waiting = True
        body = b""
        if self.bodies.random() < 0.1:  # which no module reads, and which must not be taken for a request
            body = b"GET /kv55/1 HTTP/1.1\r\nHost: x\r\n\r\n"
            if method == "GET" and self.bodies.random() < 0.5:
                fields["Transfer-Encoding"] = "chunked"
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            else:
                fields["Content-Length"] = str(len(body))
        is_conditional = "If-None-Match" in fields or "If-Modified-Since" in fields
        session.request(method, path, fields, body).known = known if is_conditional else None

    def _responded(self, exchange: Exchange) -> None:
        if exchange.method == "GET" and exchange.status == 200:
            self.known[exchange.path] = exchange
        self.is_waiting = False
        self.next()
        if self.closes and self.session is not None:
            self.session.owe("an end of the connection, as it asked for", 2.0)

    def _ended(self, session: Session) -> None:
        if self.session is session:
            self.session = None
            if self.is_waiting:  # for a response that does not come
                self.is_waiting = False
                self.next()


class Browser(User):
    """Listens to the events of a board, as the page does."""

    def prepare(self) -> None:
        code = self.world.board_stop(self.random)
        self.path = f"/events/{code}?as=json"
        self.board = b""
        self.board_at = self.last_data = self.opened_at = 0.0
        self._last_id = ""
        self._buffer = self.last_event = b""
        self.world.browsers.append(self)

    def use(self) -> None:
        self.session = session = Session(self)
        self._buffer = b""
        session.on_end = partial(self._ended, session)
        fields = {"Last-Event-ID": self._last_id} if self._last_id and self.random.random() < 0.5 else {}
        if not fields:
            self.board = b""
        self.opened_at = self.last_data = self.world.scheduler.now
        session.on_response = lambda exchange: session.close()
        session.request("GET", self.path, fields)
        if self.random.random() < 0.3:
            self.world.scheduler.after(self.random.uniform(1, 600), session.close, self.random.random() < 0.5)

    def _ended(self, session: Session) -> None:
        is_polite = self.last_event == b"bye" or session.epoch in self.world.killed_epochs
        if session.is_streaming and session.wire.end == "eof" and not is_polite:
            self.world.found("streams", f"{self.name}: the stream ended after {self.last_event!r}, without bye")
        self.next(self.random.uniform(2, 8))

    def streamed(self, session: Session, message: Message, data: bytes) -> None:
        now = self.last_data = self.world.scheduler.now
        self._buffer += data
        *events, self._buffer = self._buffer.split(b"\n\n")
        for event in events:
            fields = dict(line.partition(b": ")[::2] for line in event.split(b"\n") if not line.startswith(b":"))
            self.last_event = fields.get(b"event", b"")
            if self.last_event == b"board":
                self.board, self.board_at = fields[b"data"], now
                self._last_id = fields[b"id"].decode()


class Explorer(User):
    """Requests rarely requested stops, of which the program mostly has no board."""

    interval = (5.0, 30.0)

    def use(self) -> None:
        gateway = self.random.choice(list(self.world.gateways.values()))
        self.path = f"/{gateway.module}/{self.random.choice(gateway.quiet_stops)}"
        self.request_once()

    def request_once(self) -> None:
        """Send a request on a connection of its own."""
        self.session = session = Session(self)
        session.on_end = self.next
        session.on_response = lambda exchange: session.close()
        session.request("GET", self.path)


class Commuter(Explorer):
    """Requests a rarely requested stop together with the other commuters, as passengers of a delayed train do."""

    def prepare(self) -> None:
        self.rushes = Random(f"{self.world.seed}/rushes")  # the same for all of them
        self.at = self.world.scheduler.now

    def next(self, delay: float | None = None) -> None:
        while self.at <= self.world.scheduler.now:
            self.at += self.rushes.uniform(40, 120)
            gateway = self.rushes.choice(list(self.world.gateways.values()))
            self.path = f"/{gateway.module}/{self.rushes.choice(gateway.quiet_stops)}"
        self.world.scheduler.at(self.at + self.random.random() * self.random.choice((0.3, 3)), self.act)

    def use(self) -> None:
        self.request_once()


class Pipeliner(User):
    """Sends several requests at once."""

    def prepare(self) -> None:
        self.paths = self.world.display_paths(self.random, 6)

    def use(self) -> None:
        self.session = session = Session(self)
        session.on_end = self.next
        for _ in range(self.random.randrange(2, 12)):
            session.request("GET", self.random.choice(self.paths))

        def responded(exchange: Exchange) -> None:
            if not session.pending:
                session.close()

        session.on_response = responded


class HangsUp(User):
    """Hangs up at every byte: of its request, of the response, or in between."""

    interval = (8.0, 50.0)

    def prepare(self) -> None:
        self.paths = self.world.display_paths(self.random, 4)

    def use(self) -> None:
        random = self.random
        self.session = session = Session(self)
        session.on_end = self.next
        path = random.choice(self.paths)
        text = f"GET {path} HTTP/1.1\r\nHost: departures.example\r\n\r\n".encode()
        abort = random.random() < 0.5
        kind = random.randrange(4)
        if kind == 0:
            self.books[self.node].is_unclean = True
            session.wire.send(text[: random.randrange(len(text))])
            self.world.scheduler.after(random.random() * 20, session.close, abort)
        elif kind == 1:
            session.stops_at = random.randrange(1, 1500)
            session.request("GET", path)
        elif kind == 2:
            session.request("GET", path)
            self.world.scheduler.after(random.random() ** 3 * 12, session.close, abort)
        else:
            session.begin("GET", path, {})
            session.wire.send(text)
            session.on_open = session.wire.half_close
            session.on_response = lambda exchange: session.close()


class SlowReader(User):
    """Sends its requests byte by byte, or does not read its responses."""

    interval = (20.0, 120.0)

    def prepare(self) -> None:
        self.paths = self.world.display_paths(self.random, 3)

    def use(self) -> None:
        random = self.random
        self.session = session = Session(self)
        session.on_end = self.next
        if random.random() < 0.4:
            self.books[self.node].is_unclean = True
            path = random.choice(self.paths)
            text = f"GET {path} HTTP/1.1\r\nHost: departures.example\r\n\r\n".encode()
            pause = random.choice((0.05, 0.1, 1.0))
            if len(text) * pause < 9:
                session.begin("GET", path, {})
            for n in range(len(text)):
                self.world.scheduler.after(n * pause, self._send, session, text[n : n + 1])
            session.on_response = lambda exchange: session.close()
            return
        session.wire.sock.capacity = 2000
        session.wire.paused = True
        self.books[self.node].is_unclean = True
        n_requests = random.choice((1, 2, 3, 40))
        for _ in range(n_requests):
            session.request("GET", random.choice(self.paths))
        session.owe("an end of the connection", REQUEST_SECONDS * (n_requests + 1))
        session.on_response = lambda exchange: None if session.pending else session.close()
        if random.random() < 0.5:
            self.world.scheduler.after(random.random() * 12, session.wire.resume)

    def _send(self, session: Session, data: bytes) -> None:
        if session.is_usable:
            session.wire.send(data)


class Hostile(User):
    """Sends what is no request, or too large a one."""

    interval = (20.0, 80.0)

    def use(self) -> None:
        random = self.random
        self.books[self.node].is_unclean = True
        self.session = session = Session(self)
        session.on_end = self.next
        heads = (
            b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n",
            b"GET /kv55/" + b"9" * 30000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /%00%ff/../.. HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /kv55/1 HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
            b"BREW /kv55/1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /kv55/<script> HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /board/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"a" * 5000,
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /events/1 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: \xff\r\n\r\n",
        )  # fmt: skip
        session.wire.send(random.choice(heads))
        session.is_kept_open = random.random() < 0.3
        self.world.scheduler.after(random.random() * 20, session.close, random.random() < 0.5)


BURST, RATE = 100, 20
"""Requests of one client that may arrive together, and in a second from then on."""


class Flooder(User):
    """Requests one board more often than it may, now and then."""

    interval = (100.0, 300.0)
    CONNECTIONS, REQUESTS = 8, 40

    def prepare(self) -> None:
        self.path = self.world.display_paths(self.random, 1)[0]

    def use(self) -> None:
        self.n_served = self.n_rejected = 0
        self.n_open = self.CONNECTIONS
        self.began = self.world.scheduler.now
        for _ in range(self.CONNECTIONS):
            session = Session(self)
            session.on_response = partial(self._responded, session)
            session.on_end = self._ended
            session.request("GET", self.path)

    def _responded(self, session: Session, exchange: Exchange) -> None:
        is_rejected = exchange.status == 429
        self.n_rejected += is_rejected
        self.n_served += not is_rejected
        if self.n_served < self.CONNECTIONS * self.REQUESTS and session.is_usable and not is_rejected:
            session.request("GET", self.path)
        else:
            session.close()

    def _ended(self) -> None:
        self.n_open -= 1
        if self.n_open:
            return
        seconds = self.world.scheduler.now - self.began
        if self.n_served > BURST + RATE * seconds + 1 and not self.world.steps:
            self.world.found("limits", f"{self.name}: {self.n_served} requests were served in {seconds:.1f} s")
        self.next()


class LiveDisplay(Display):
    """Polls boards of the live feed in several forms."""

    def prepare(self) -> None:
        super().prepare()
        self.paths = self.world.feed_paths(self.random)


class Operator(User):
    """A load balancer and a monitoring system: asks /ready and /health, and scrapes /metrics."""

    interval = (10.0, 28.0)

    def prepare(self) -> None:
        self.names = Random(f"{self.world.seed}/names/{self.number}")

    def choose_node(self) -> Node:
        return self.node

    def use(self) -> None:
        if self.names.random() < 0.2:
            self.ask("/status", self.responded_to_name, "renamed.example", on_end=self.next)
            return
        paths = ("/ready", "/ready", "/ready", "/health", "/metrics", "/status.json", "/status")
        self.ask(self.random.choice(paths), on_end=self.next)

    def responded_to_name(self, exchange: Exchange) -> None:
        """The name in force is that of the last reload."""
        node, world = exchange.node, self.world
        is_settled = exchange.sent_at > max(node.renamed_at, node.started_at) + 1
        if is_settled and node.is_up and (exchange.status == 421) == node.is_renamed:
            world.found("reloads", f"{exchange}: {exchange.status}, though is_renamed is {node.is_renamed}")

    def ask(
        self, path: str, then: Callable[[Exchange], object] = id, host: str = "127.0.0.1",
        on_end: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Send a request on a connection of its own. then: called with its response, if there is one."""
        session = Session(self, 8081)
        session.on_end = on_end

        def responded(exchange: Exchange) -> None:
            session.close()
            then(exchange)

        session.on_response = responded
        session.request("GET", path, {"Host": host})
