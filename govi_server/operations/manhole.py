"""The manhole: a Python prompt inside the running program, over SSH, for operators whose public key is listed.

It needs the extra govi-server[manhole]; whoever does not ask for a manhole never imports this module.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.operations.commands import ManholeCommands, clean
from govi_server.sockets.accepting import AcceptThrottle

log = Logger()


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
            raise StartupError(f"the manhole's keys: {self.path}: {error.strerror}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartupError(f"the manhole's keys: {self.path}: others may write it (chmod go-w)")
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
                raise StartupError(f"the manhole's keys: {self.path}: line {number} is no public key")
            keys.append(key)
        if not keys:
            raise StartupError(f"the manhole's keys: {self.path}: there is no key in it")
        return keys

    def getAuthorizedKeys(self, username: bytes) -> Iterable[Key]:
        """List the keys, which are the same under every name; none if the file is no longer what it should be."""
        try:
            return self.read()
        except StartupError as error:
            log.error("{error}: nobody comes in", error=error)
            return ()


class Checker(SSHPublicKeyChecker):
    """Lets in who has one of the keys, and knows them by the key's fingerprint: a name can be made up."""

    def _verifyKey(self, pubKey: Key, credentials: Any) -> bytes:
        name = super()._verifyKey(pubKey, credentials)
        if name is None:  # the signature is wrong
            raise UnauthorizedLogin("wrong signature")
        who = f"{clean(name.decode('utf-8', 'replace'))} (key {pubKey.fingerprint()})"
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
                raise StartupError(f"the manhole's host key: {path}: others may read it (chmod 600)")
            key: Key = Key.fromString(file.read())
    except OSError as error:
        raise StartupError(f"the manhole's host key: {path}: {error.strerror}") from None
    except (BadKeyError, EncryptedKeyError, ValueError) as error:
        raise StartupError(f"the manhole's host key: {path}: {error}") from None
    if key.isPublic():
        raise StartupError(f"the manhole's host key: {path}: it is a public key")
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
        log.info("{who} at the manhole: {line}", who=self._who, line=clean(line.decode("utf-8", "replace")))
        try:
            super().lineReceived(line)
        except SystemExit:  # raised by the line: of the session, not of the server
            self.handle_QUIT()

    def terminalSize(self, width: int, height: int) -> None:
        """Take note of the size; the original would clear the screen, and the greeting with it."""
        self.width, self.height = width, height


class _Terminal(ServerProtocol):
    def __init__(self, leave: Callable[[], None], *prompt: object) -> None:
        super().__init__(*prompt)
        self._leave = leave

    def loseConnection(self) -> None:
        """Leave the screen as it is, for the original clears it."""
        self._leave()


class Session(TerminalSession):
    """What a client may have: the prompt on a terminal, or the value of one expression."""

    width, height = 80, 24
    _terminal: Any = None

    def __init__(
        self, original: Any, clock: IReactorTime, who: str, namespace: Mapping[str, object], greeting: str
    ) -> None:
        super().__init__(original)
        self._clock = clock
        self._who = who
        self.namespace = namespace
        self.greeting = greeting

    def openShell(self, proto: Any) -> None:
        """Open a prompt."""

        def leave() -> None:  # with an exit status: ssh would give 255, as for a connection that broke
            proto.processEnded(Failure(ProcessDone(0)))

        self._terminal = _Terminal(leave, Prompt, self.namespace, self.greeting, self._who)
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
        log.info("{who} at the manhole: {line}", who=self._who, line=clean(text))
        # Not at once: the client is to hear first that its command was taken. What it evaluates is its own affair.
        answer = deferLater(self._clock, 0, lambda: eval(text, dict(self.namespace)))
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


class _Transport(SSHServerTransport):
    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """Take note of a client's goodbye, which the original calls an error, as if something had gone wrong."""
        said = clean(description.decode("utf-8", "replace"))
        log.info("A client leaves the manhole: {said} (code {code})", said=said, code=reasonCode)


class Manhole(ConchFactory):
    """The SSH server; what: the name that logs call it by."""

    protocol = _Transport
    name = "the manhole"
    noisy = False

    def __init__(
        self, clock: IReactorTime, keys: KeysFile, verbs: ManholeCommands, objects: Mapping[str, object]
    ) -> None:
        keys.read()
        key = host_key(f"{keys.path}.host")
        public: Any = {key.sshType(): key.public()}
        private: Any = {key.sshType(): key}
        self.publicKeys, self.privateKeys = public, private
        self.accepting = AcceptThrottle(clock, self.name)
        self.connections: set[Any] = set()
        namespace = {**objects, **verbs.all()}
        greeting = (
            "What you type runs inside the server: while it works, nobody else is served.\n"
            f"{verbs.help()}\nThe objects themselves: {', '.join(objects)}. Leave with exit() or control-D."
        )
        super().__init__(Portal(cast(Any, _Realm(clock, namespace, greeting)), [Checker(keys)]))

    def buildProtocol(self, addr: Any) -> Any:
        """Make the server's end of a connection."""
        protocol: Any = super().buildProtocol(addr)
        self.accepting.check()
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
    def __init__(self, clock: IReactorTime, namespace: Mapping[str, object], greeting: str) -> None:
        super().__init__()
        self._clock = clock
        self._namespace = namespace
        self._greeting = greeting

    def requestAvatar(self, avatarId: bytes, mind: object, *interfaces: Any) -> Any:
        self.sessionFactory = cast(
            Any, lambda original: Session(original, self._clock, avatarId.decode(), self._namespace, self._greeting)
        )
        return super().requestAvatar(avatarId, mind, *interfaces)
