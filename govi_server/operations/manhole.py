"""The manhole: a Python prompt inside the running program, over SSH, for operators whose public key is listed.

It needs twisted[conch]; unless a manhole is configured, this module is not imported.
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
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, FingerprintFormats, Key
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
from govi_server.operations.commands import ManholeCommands
from govi_server.runtime.text import escape_unprintable, printable
from govi_server.sockets.accepting import AcceptThrottle

SETTING = "manhole.keys (--manhole-keys)"
"""The name of the keys' setting in errors."""

MAX_NAME_CHARACTERS = 64
"""Characters of an operator's name in log lines; SSH clients choose any."""

log = Logger()


def _log_command(operator: str, line: bytes) -> None:
    log.info("Manhole: {operator}: {line}", operator=operator, line=printable(line.decode("utf-8", "replace")))


@implementer(IAuthorizedKeysDB)
class KeysFile:
    """A file of the public keys that may log in, one per line.

    It is read at each login, so that removing a key takes effect immediately.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # twistd changes its working directory

    def read(self) -> list[Key]:
        """Return the keys. Raises StartupError."""
        try:
            with open(self.path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = [line.strip() for line in file]
        except OSError as error:
            raise StartupError(f"{SETTING}: cannot read {self.path}: {error.strerror}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartupError(f"{SETTING}: {self.path} is writable by others (expected chmod go-w)")
        keys = []
        for number, line in enumerate(lines, 1):
            if not line or line.startswith(b"#"):
                continue
            try:
                key = Key.fromString(line)
            except Exception:  # fromString() raises many kinds of exceptions
                key = None
            # A key with options, such as from=, is rejected, because ignoring them would admit others.
            if key is None or not key.isPublic():
                raise StartupError(f"{SETTING}: {self.path}, line {number}: not a public key")
            keys.append(key)
        if not keys:
            raise StartupError(f"{SETTING}: {self.path} contains no keys")
        return keys

    def getAuthorizedKeys(self, username: bytes) -> Iterable[Key]:
        """Return the keys, which do not depend on the user name; no keys if the file has become invalid."""
        try:
            return self.read()
        except StartupError as error:
            log.error("Manhole: rejecting logins ({error})", error=error)
            return ()


def fingerprint(key: Key) -> str:
    """Return the fingerprint of a key as `ssh-keygen -l` prints it."""
    return f"SHA256:{key.fingerprint(FingerprintFormats.SHA256_BASE64).rstrip('=')}"


class Checker(SSHPublicKeyChecker):
    """Authenticates operators by one of the keys; its fingerprint is their identity, since names are arbitrary."""

    def _verifyKey(self, pubKey: Key, credentials: Any) -> bytes:
        name = super()._verifyKey(pubKey, credentials)
        if name is None:  # the signature is wrong
            raise UnauthorizedLogin("wrong signature")
        operator = f"{printable(name.decode('utf-8', 'replace'), MAX_NAME_CHARACTERS)} (key {fingerprint(pubKey)})"
        log.info("Manhole: login of {operator}", operator=operator)
        return operator.encode()


def host_key(path: str) -> Key:
    """Return the server's host key, which is created at the first start. Raises StartupError."""
    try:
        with suppress(FileExistsError):
            text = Key(ed25519.Ed25519PrivateKey.generate()).toString("openssh")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text)
            log.info("Manhole: created host key {path}", path=path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise StartupError(f"{SETTING}: host key {path}: readable by others (expected chmod 600)")
            key: Key = Key.fromString(file.read())
    except OSError as error:
        raise StartupError(f"{SETTING}: host key {path}: {error.strerror}") from None
    except (BadKeyError, EncryptedKeyError, ValueError) as error:
        raise StartupError(f"{SETTING}: host key {path}: {error}") from None
    if key.isPublic():
        raise StartupError(f"{SETTING}: host key {path}: is a public key (expected a private one)")
    return key


class Prompt(ColoredManhole):
    """The prompt of one session."""

    def __init__(self, namespace: Mapping[str, object], greeting: str, operator: str) -> None:
        # Python's own exit() would close the server's stdin.
        super().__init__({**namespace, "exit": self.handle_QUIT, "quit": self.handle_QUIT})
        self._greeting = greeting
        self._operator = operator

    def initializeScreen(self) -> None:
        """Write the greeting without clearing the screen."""
        self.terminal.write(self._greeting + "\n")
        self.terminal.write(self.ps[self.pn])
        self.setInsertMode()

    def lineReceived(self, line: bytes) -> None:
        """Log a line and run it."""
        _log_command(self._operator, line)
        try:
            super().lineReceived(line)
        except SystemExit:  # ends the session, not the server
            self.handle_QUIT()

    def addOutput(self, data: Any, isAsync: bool | None = None) -> None:
        """Write output to the terminal; values and exceptions may quote texts from outside."""
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        super().addOutput(escape_unprintable(text, allowed="\n\t"), isAsync)

    def terminalSize(self, width: int, height: int) -> None:
        """Set the size of the terminal; the base class would also clear the screen and thus the greeting."""
        self.width, self.height = width, height


class _Terminal(ServerProtocol):
    def __init__(self, leave: Callable[[], None], *prompt: object) -> None:
        super().__init__(*prompt)
        self._leave = leave

    def loseConnection(self) -> None:
        """End the session; the base class would also clear the screen."""
        self._leave()


class Session(TerminalSession):
    """A session: the prompt on a terminal, or the value of one expression."""

    width, height = 80, 24
    _has_terminal = False
    _terminal: Any = None

    def __init__(
        self, original: Any, clock: IReactorTime, operator: str, namespace: Mapping[str, object], greeting: str
    ) -> None:
        super().__init__(original)
        self._clock = clock
        self._operator = operator
        self.namespace = namespace
        self.greeting = greeting

    def openShell(self, proto: Any) -> None:
        """Open a prompt; reject one without a terminal, which could only show control characters."""
        if not self._has_terminal:
            proto.makeConnection(_DiscardInput())
            deferLater(self._clock, 0, lambda: _reject(proto))  # after the acknowledgement that the client expects
            return

        def leave() -> None:  # with an exit status, or else ssh exits with 255, as after a broken connection
            proto.processEnded(Failure(ProcessDone(0)))

        self._terminal = _Terminal(leave, Prompt, self.namespace, self.greeting, self._operator)
        self.chainedProtocolFactory = cast(Any, lambda: self._terminal)  # here, because the realm sets it as well
        super().openShell(proto)

    def getPty(self, term: bytes, windowSize: Sequence[int], attrs: object) -> None:
        """Set the size of the terminal that the client has."""
        self._has_terminal = True
        self.height, self.width = windowSize[:2]

    def windowChanged(self, newWindowSize: Sequence[int]) -> None:
        """Set the terminal's new size."""
        self.height, self.width = newWindowSize[:2]
        prompt = getattr(self._terminal, "terminalProtocol", None)
        if prompt is not None:
            prompt.terminalSize(self.width, self.height)

    def eofReceived(self) -> None:
        """Continue after the end of the client's input: the expression's value is still to be sent."""

    def execCommand(self, proto: Any, cmd: bytes) -> None:
        """Send the value of one expression: ssh HOST 'status()'."""
        proto.makeConnection(_DiscardInput())
        text = cmd.decode("utf-8", "replace")
        _log_command(self._operator, cmd)
        # Later, because the client expects an acknowledgement first. Evaluating input is the manhole's purpose.
        value = deferLater(self._clock, 0, lambda: eval(text, dict(self.namespace)))
        value.addCallbacks(self._send_value, self._send_error, callbackArgs=(proto,), errbackArgs=(proto,))
        value.addErrback(lambda failure: log.failure("Manhole: sending a result failed", failure))

    def _send_value(self, value: object, proto: Any) -> None:
        if value is not None:
            text = escape_unprintable(repr(value), allowed="\n\t")
            proto.outReceived(f"{text}\n".encode())
        proto.processEnded(Failure(ProcessDone(0)))

    def _send_error(self, failure: Failure, proto: Any) -> None:
        proto.errReceived(f"{type(failure.value).__name__}: {printable(failure.getErrorMessage())}\n".encode())
        proto.processEnded(Failure(ProcessTerminated(1)))


def _reject(proto: Any) -> None:
    proto.errReceived(b"the prompt needs a terminal (ssh -t); without one, send an expression: ssh HOST 'status()'\n")
    proto.processEnded(Failure(ProcessTerminated(1)))


class _DiscardInput:
    """Discards a client's input while its expression is evaluated."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...


class _Transport(SSHServerTransport):
    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """Log that a client disconnects, which the base class logs as an error."""
        text = printable(description.decode("utf-8", "replace"))
        log.info("Manhole: client disconnected: {text} (code {code})", text=text, code=reasonCode)


class Manhole(ConchFactory):
    """The SSH server. name: the name in log lines."""

    protocol = _Transport
    name = "the manhole"
    noisy = False

    def __init__(
        self, clock: IReactorTime, keys: KeysFile, commands: ManholeCommands, objects: Mapping[str, object]
    ) -> None:
        keys.read()
        key = host_key(f"{keys.path}.host")
        public: Any = {key.sshType(): key.public()}
        private: Any = {key.sshType(): key}
        self.publicKeys, self.privateKeys = public, private
        self.accepting = AcceptThrottle(clock, self.name, drops=False)
        self.connections: set[Any] = set()
        namespace = {**objects, **commands.all()}
        greeting = (
            "This prompt runs inside the server: no requests are served while a line runs.\n"
            f"{commands.help()}\nObjects: {', '.join(objects)}. Leave with exit() or control-D."
        )
        super().__init__(Portal(cast(Any, _Realm(clock, namespace, greeting)), [Checker(keys)]))

    def buildProtocol(self, addr: Any) -> Any:
        """Return the protocol of a new connection."""
        protocol: Any = super().buildProtocol(addr)
        self.connections.add(protocol)
        lost = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            self.connections.discard(protocol)
            lost(reason)

        protocol.connectionLost = connection_lost
        return protocol

    def close(self) -> Deferred[None]:
        """Close all sessions; return a Deferred that has fired."""
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
