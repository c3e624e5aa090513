"""The manhole: a Python prompt inside the running program, over SSH, for operators whose public key is listed.

It needs the extra govi-server[manhole]; whoever does not ask for a manhole never imports this module.
"""

import inspect
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.application.service import Service
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    InvalidLogLevelError,
    LegacyLogObserverWrapper,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.board import Board, NoBoard
from govi_server.kv55.messages import is_timing_point_code
from govi_server.modules.kv55_live import HORIZON
from govi_server.open_files import Accepting
from govi_server.operations.parts import GatewayParts, Parts
from govi_server.operations.status import Status
from govi_server.services import CannotStart

MOST = 20
"""Lines of a table."""

TO_SAY = 0.5
"""Seconds that the answer of drain() has to go out before the end begins, which closes the session, too."""

log = Logger()


class Text(str):
    """What a verb says: a prompt shows it as it is, not as a literal."""

    def __repr__(self) -> str:
        return str(self)


class LogLevels(Service):
    """Lets levels of the log be set while the program runs; what they hide is not written, but still counted."""

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self.predicate = LogLevelFilterPredicate(LogLevel.info)
        self.said: dict[str, str] = {}
        """The levels that were set, by namespace."""
        self._publisher = publisher
        self._wrapped: list[tuple[ILogObserver, ILogObserver]] = []

    def startService(self) -> None:
        """Stand before what twistd writes its log with."""
        super().startService()
        # There is no public way to ask for the log that twistd began. LastHour and its like are left as they are.
        for observer in list(self._publisher._observers):
            if isinstance(observer, FileLogObserver | LegacyLogObserverWrapper):
                filtering = FilteringLogObserver(observer, [cast(Any, self.predicate)])
                self._wrapped.append((observer, filtering))
                self._publisher.removeObserver(observer)
                self._publisher.addObserver(filtering)

    def stopService(self) -> None:
        """Leave the log as it was."""
        super().stopService()
        for observer, filtering in self._wrapped:
            self._publisher.removeObserver(filtering)
            self._publisher.addObserver(observer)
        self._wrapped.clear()

    def set(self, namespace: str, level: str) -> None:
        """Write what is of this level or above of a namespace and all below it. Raises InvalidLogLevelError."""
        self.predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level))
        self.said[namespace] = level


class Verbs:
    """What an operator does most. Each public method is a verb, and the first line of its docstring its help."""

    def __init__(
        self, parts: Parts, status: Status, levels: LogLevels, clock: IReactorTime, end: Callable[[], object]
    ) -> None:
        self._parts = parts
        self._status = status
        self._levels = levels
        self._clock = clock
        self._end = end
        self._ending = False

    def all(self) -> dict[str, Callable[..., object]]:
        """Give the verbs by name."""
        found = inspect.getmembers(type(self), inspect.isfunction)
        return {name: getattr(self, name) for name, _ in found if name != "all" and not name.startswith("_")}

    def help(self, verb: object = None) -> Text:
        """List the verbs; help(verb) tells more of one."""
        if verb is not None:  # and never pydoc's pager, which would wait for a keyboard that the server has not
            return Text(inspect.getdoc(verb) or "nothing is written of it")
        rows = [
            (name + str(inspect.signature(method)).partition(" ->")[0].replace("'", ""), _first_line(method))
            for name, method in self.all().items()
        ]
        return _table(rows, len(rows))

    def status(self) -> Text:
        """How the program is doing: the verdict and why, connections, sources, what went wrong."""
        now = self._status.json()
        rows = [
            ("verdict", f"{now['verdict']} since {now['since']}"),
            *(("", why) for why in now["why"]),
            ("version", f"{now['version']}, started {now['started']}"),
            ("connections", f"{now['connections']['open']} of {now['connections']['limit']}"),
        ]
        for name, source in now["gateways"].items():
            boards = source["cache"]["boards"]
            rows.append((f"/{name}", f"breaker {source['breaker']}, {source['flights']} flights, {boards} boards"))
        if feed := now["feed"]:
            rows.append(("feed", f"{feed['state']}, age {feed['age']} s, {feed['passes']} passes"))
        for where, counts in now["incidents"].items():
            rows.append((where, ", ".join(f"{kind}: {n}" for kind, n in counts.items())))
        return _table(rows, len(rows))

    def flights(self) -> Text:
        """The stops that a gateway is being asked for, with how many clients wait for each."""
        rows = [
            (f"/{name}", code, f"{waiting} waiting")
            for name, source in self._parts.gateways.items()
            for code, waiting in sorted(source.cache.flights.items(), key=lambda one: -one[1])
        ]
        return _table(rows) if rows else Text("nothing is being asked for")

    def stop(self, code: str) -> Text:
        """What is known of a stop, stop("31000226"): its boards in memory with their ages; asks for nothing."""
        if wrong := _wrong(code):
            return wrong
        shown = []
        for name, source in self._parts.gateways.items():
            entry = source.cache.peek(code)
            if entry is None:
                shown.append(f"/{name}: {code} is not in the cache")
            else:
                shown.append(f"/{name}: {_board(entry.board, source.cache.age(entry))}")
        if self._parts.feed is not None:
            shown.append(self._live(code))
        return Text("\n".join(shown))

    def slow(self) -> Text:
        """The stops that clients waited longest for in the last hour."""
        slowest = self._status.json()["stops"]["slowest_ms"]
        rows = [(stop, f"{milliseconds} ms") for stop, milliseconds in slowest.items()]
        return _table(rows) if rows else Text("nobody waited for a stop in the last hour")

    def breaker(self) -> Text:
        """Whether each gateway is asked: closed is well, open is left alone, half-open is being tried.

        There is no way to close one by hand: it tries by itself every few seconds, and a try is what closes it.
        """
        rows = [(f"/{name}", source.breaker.state) for name, source in self._parts.gateways.items()]
        return _table(rows) if rows else Text("no gateway is asked")

    def purge(self, code: str) -> Text:
        """Forget a stop's cached boards: who asks next waits for a new one."""
        if wrong := _wrong(code):
            return wrong
        gone = [f"/{name}" for name, source in self._parts.gateways.items() if source.cache.purge(code)]
        return Text(f"{code}: forgotten by {', '.join(gone)}" if gone else f"{code}: in no cache")

    def refresh(self, code: str) -> Text | Deferred[Text]:
        """Ask the gateways for a stop now, past the cache, and show what comes; it is cached, too."""
        if wrong := _wrong(code):
            return wrong
        if not self._parts.gateways:
            return Text("no gateway is asked: the live feed comes by itself")
        asked: Deferred[Text] = Deferred.fromCoroutine(self._refresh(code))
        # A prompt shows a Deferred that has fired by its address: what is there at once is better said at once.
        said = getattr(asked, "result", None)
        return said if isinstance(said, Text) else asked

    def log_level(self, namespace: str | None = None, level: str = "info") -> Text:
        """Set what is written of a namespace, log_level("twisted.conch", "debug"); "" is the default for all.

        Levels are debug, info, warn, error and critical. It holds for all namespaces below, such as
        govi_server.kv55.gateway of govi_server.kv55, and until the program ends. Without arguments: what was set.
        """
        if namespace is not None:
            try:
                self._levels.set(namespace, level)
            except InvalidLogLevelError:
                known = ", ".join(constant.name for constant in LogLevel.iterconstants())
                return Text(f"{level!r} is no level; there are {known}")
        return _table(
            [("(all others)", "info"), *((name or "(all)", said) for name, said in self._levels.said.items())]
        )

    def drain(self) -> Text:
        """End the program as SIGTERM does: listen no more, finish the requests in flight, close, exit with 0.

        Whether it starts again is for what watches it: systemd does with Restart=always.
        """
        in_flight = len(self._parts.server.connections)
        if self._ending or self._parts.server.draining:
            return Text(f"it ends already: {in_flight} connections are left")
        self._ending = True
        self._clock.callLater(TO_SAY, self._end)
        return Text(f"it ends; {in_flight} connections are finished first, and new ones are refused")

    def _live(self, code: str) -> str:
        feed = self._parts.feed
        assert feed is not None
        if not feed.boards.knows(code):
            return f"feed: {code} is not known"
        board = feed.boards.board(code, HORIZON)
        condition, age = feed.condition(board)
        rows = [
            (
                feed.timetable.public_number(one),
                feed.timetable.destination(one),
                one.target_departure_time or one.target_arrival_time,
                one.expected_departure_time or one.expected_arrival_time,
                one.trip_stop_status,
            )
            for one in board.passes
        ]
        said = (
            f"feed: {code} is {condition}, said {age:.0f} s ago, {len(rows)} passes, {len(board.messages)} messages"
        )
        return f"{said}\n{_table(rows)}" if rows else said

    async def _refresh(self, code: str) -> Text:
        shown = []
        for name, source in self._parts.gateways.items():
            shown.append(f"/{name}: {await self._ask(source, code)}")
        return Text("\n".join(shown))

    async def _ask(self, source: GatewayParts, code: str) -> str:
        begun = self._clock.seconds()
        try:
            board = await source.breaker.board(code)
        except NoBoard as error:
            return f"{code}: no board: {_clean(error)}"
        entry = source.cache.put(board)
        seconds = self._clock.seconds() - begun
        return f"answered after {seconds:.1f} s: {_board(board, source.cache.age(entry))}"


def _first_line(method: object) -> str:
    return (inspect.getdoc(method) or "").partition("\n")[0]


def _wrong(code: object) -> Text | None:
    """Say so if something cannot be a stop."""
    if isinstance(code, str) and is_timing_point_code(code):
        return None
    return Text(f'{code!r} is no TimingPointCode: digits in quotes, such as "31000226"')


def _board(board: Board, age: float) -> str:
    rows = [
        (
            trip.line_public_number or trip.line_planning_number,
            trip.destination_name,
            trip.target_departure_time,
            trip.expected_departure_time,
            trip.trip_stop_status,
        )
        for trip in board.trips
    ]
    said = f"{board.code}, {len(rows)} departures, {age:.0f} s old"
    return f"{said}\n{_table(rows)}" if rows else said


def _clean(value: object) -> str:
    """Make a text fit for a terminal: what sources send may hold what would steer it."""
    text = "-" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def _table(rows: Sequence[Sequence[object]], most: int = MOST) -> Text:
    texts = [[_clean(cell) for cell in row] for row in rows[:most]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    ]
    if len(rows) > most:
        lines.append(f"  and {len(rows) - most} more")
    return Text("\n".join(lines))


# The way in.


@implementer(IAuthorizedKeysDB)
class KeysFile:
    """The public keys that may come in, one in a line; read anew for each login: a key that is gone is out."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # twistd changes its directory

    def read(self) -> list[Key]:
        """Read the keys. Raises CannotStart."""
        try:
            with open(self.path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = [line.strip() for line in file]
        except OSError as error:
            raise CannotStart(f"the manhole's keys: {self.path}: {error.strerror}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CannotStart(f"the manhole's keys: {self.path}: others may write it (chmod go-w)")
        keys = []
        for number, line in enumerate(lines, 1):
            if not line or line.startswith(b"#"):
                continue
            try:
                key = Key.fromString(line)
            except Exception:  # it raises what it likes
                key = None
            # Options before a key, such as from=, are refused with it: to pass over them would let others in.
            if key is None or not key.isPublic():
                raise CannotStart(f"the manhole's keys: {self.path}: line {number} is no public key")
            keys.append(key)
        if not keys:
            raise CannotStart(f"the manhole's keys: {self.path}: there is no key in it")
        return keys

    def getAuthorizedKeys(self, username: bytes) -> Iterable[Key]:
        """List the keys, which are the same under every name; none if the file is no longer what it should be."""
        try:
            return self.read()
        except CannotStart as error:
            log.error("{error}: nobody comes in", error=error)
            return ()


class Checker(SSHPublicKeyChecker):
    """Lets in who has one of the keys, and knows them by the key's fingerprint: a name can be made up."""

    def _verifyKey(self, pubKey: Key, credentials: Any) -> bytes:
        name = super()._verifyKey(pubKey, credentials)
        if name is None:  # the signature is wrong
            raise UnauthorizedLogin("wrong signature")
        who = f"{_clean(name.decode('utf-8', 'replace'))} (key {pubKey.fingerprint()})"
        log.info("{who} comes in by the manhole", who=who)
        return who.encode()


def host_key(path: str) -> Key:
    """Give the key by which clients know the server, made at the first start. Raises CannotStart."""
    try:
        with suppress(FileExistsError):
            made = Key(ed25519.Ed25519PrivateKey.generate()).toString("openssh")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(made)
            log.info("The manhole's host key is new, and kept in {path}", path=path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise CannotStart(f"the manhole's host key: {path}: others may read it (chmod 600)")
            key: Key = Key.fromString(file.read())
    except OSError as error:
        raise CannotStart(f"the manhole's host key: {path}: {error.strerror}") from None
    except (BadKeyError, EncryptedKeyError, ValueError) as error:
        raise CannotStart(f"the manhole's host key: {path}: {error}") from None
    if key.isPublic():
        raise CannotStart(f"the manhole's host key: {path}: it is a public key")
    return key


class Prompt(ColoredManhole):
    """The prompt of one session."""

    def __init__(self, namespace: Mapping[str, object], greeting: str, who: str) -> None:
        leave = {"exit": self.handle_QUIT, "quit": self.handle_QUIT}  # Python's own would close the server's stdin
        super().__init__({**namespace, **leave})
        self._greeting = greeting
        self._who = who

    def initializeScreen(self) -> None:
        """Greet, and leave on the screen what is there."""
        self.terminal.write(self._greeting + "\n")
        self.terminal.write(self.ps[self.pn])
        self.setInsertMode()

    def lineReceived(self, line: bytes) -> None:
        """Run a line, which goes to the log, too."""
        log.info("{who} at the manhole: {line}", who=self._who, line=_clean(line.decode("utf-8", "replace")))
        try:
            super().lineReceived(line)
        except SystemExit:  # raised by the line: of the session, not of the server
            self.handle_QUIT()

    def terminalSize(self, width: int, height: int) -> None:
        """Take note of the size; the original would clear the screen, and the greeting with it."""
        self.width, self.height = width, height


class _Terminal(ServerProtocol):
    def loseConnection(self) -> None:
        """Leave the screen as it is, for the original clears it."""
        assert self.transport is not None
        self.transport.loseConnection()


class Session(TerminalSession):
    """What a client may have: the prompt on a terminal, or the value of one expression."""

    width, height = 80, 24
    _terminal: Any = None

    def __init__(self, original: Any, who: str, namespace: Mapping[str, object], greeting: str) -> None:
        super().__init__(original)
        self._who = who
        self.namespace = namespace
        self.greeting = greeting

    def openShell(self, proto: Any) -> None:
        """Open a prompt."""
        self._terminal = _Terminal(Prompt, self.namespace, self.greeting, self._who)
        self.chainedProtocolFactory = cast(Any, lambda: self._terminal)  # here, for the realm sets it, too
        super().openShell(proto)

    def getPty(self, term: bytes, windowSize: Sequence[int], attrs: object) -> None:
        """Take note of the terminal's size."""
        self.height, self.width = windowSize[:2]

    def windowChanged(self, newWindowSize: Sequence[int]) -> None:
        """Take note of the terminal's new size."""
        self.height, self.width = newWindowSize[:2]
        prompt = getattr(self._terminal, "terminalProtocol", None)
        if prompt is not None:
            prompt.terminalSize(self.width, self.height)

    def eofReceived(self) -> None:
        """Let the client say no more; what is under way is still answered."""

    def execCommand(self, proto: Any, cmd: bytes) -> None:
        """Tell the value of one expression: ssh HOST 'status()'."""
        proto.makeConnection(_Nowhere())
        text = cmd.decode("utf-8", "replace")
        log.info("{who} at the manhole: {line}", who=self._who, line=_clean(text))
        answer = maybeDeferred(lambda: eval(text, dict(self.namespace)))  # it is what this door is for
        answer.addCallbacks(self._say, self._complain, callbackArgs=(proto,), errbackArgs=(proto,))
        answer.addErrback(lambda failure: log.failure("The manhole's answer was lost", failure))

    def _say(self, value: object, proto: Any) -> None:
        if value is not None:
            proto.outReceived(f"{value!r}\n".encode("utf-8", "replace"))
        proto.processEnded(Failure(ProcessDone(0)))

    def _complain(self, failure: Failure, proto: Any) -> None:
        proto.errReceived(f"{type(failure.value).__name__}: {failure.getErrorMessage()}\n".encode("utf-8", "replace"))
        proto.processEnded(Failure(ProcessTerminated(1)))


class _Nowhere:
    """Takes what a client types while its expression is worked out."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...


class Manhole(ConchFactory):
    """The SSH server; what: the name that logs call it by."""

    what = "the manhole"
    noisy = False

    def __init__(self, clock: IReactorTime, keys: KeysFile, verbs: Verbs, objects: Mapping[str, object]) -> None:
        keys.read()
        key = host_key(f"{keys.path}.host")
        public: Any = {key.sshType(): key.public()}
        private: Any = {key.sshType(): key}
        self.publicKeys, self.privateKeys = public, private
        self.accepting = Accepting(clock, self.what)
        self.connections: set[Any] = set()
        namespace = {**objects, **verbs.all()}
        greeting = (
            "What you type runs inside the server: while it works, nobody else is served.\n"
            f"{verbs.help()}\nThe objects themselves: {', '.join(objects)}. Leave with exit() or control-D."
        )
        super().__init__(Portal(cast(Any, _Realm(namespace, greeting)), [Checker(keys)]))

    def buildProtocol(self, addr: Any) -> Any:
        """Make the server's end of a connection."""
        protocol: Any = super().buildProtocol(addr)
        self.accepting.look()
        self.connections.add(protocol)
        lost = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            self.connections.discard(protocol)
            lost(reason)

        protocol.connectionLost = connection_lost
        return protocol

    def close(self) -> Deferred[None]:
        """Close all sessions."""
        for protocol in list(self.connections):
            protocol.transport.abortConnection()
        return succeed(None)


class _Realm(TerminalRealm):
    def __init__(self, namespace: Mapping[str, object], greeting: str) -> None:
        super().__init__()
        self._namespace = namespace
        self._greeting = greeting

    def requestAvatar(self, avatarId: bytes, mind: object, *interfaces: Any) -> Any:
        self.sessionFactory = cast(
            Any, lambda original: Session(original, avatarId.decode(), self._namespace, self._greeting)
        )
        return super().requestAvatar(avatarId, mind, *interfaces)
