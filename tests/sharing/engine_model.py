"""Data and commands of an engine: what the scripts of govi_server.sharing.boards call, run by a Lua interpreter.

The scripts themselves are run, as the engine would: https://redis.io/docs/latest/develop/programmability/. The
connections are those of tests.sharing.fake_engine, or of tests.simulation.engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from math import inf
from typing import Any

from lupa import lua51  # the version of the engines

Publish = Callable[[bytes, bytes], object]

OOM = "OOM command not allowed when used memory > 'maxmemory'."
READONLY = "READONLY You can't write against a read only replica."
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class CommandError(Exception):
    """An error reply."""


@dataclass(slots=True)
class Entry:
    """A key's value, a string or a sorted set. expires: the time at which it ends."""

    value: bytes | dict[bytes, float]
    expires: float = inf
    written_at: float = 0.0


@dataclass(slots=True)
class EngineModel:
    """The keys of an engine. now: returns its time in seconds. publish: passes a message on to the subscribers.

    is_full: no memory is left for writes. error: the reply to all scripts, if any. hello: that to HELLO, with a role.
    """

    now: Callable[[], float]
    publish: Publish
    entries: dict[bytes, Entry] = field(default_factory=dict)
    is_full: bool = False
    error: str = ""
    hello: dict[str, object] = field(
        default_factory=lambda: {"server": "redis", "version": "7.0.15", "proto": 3, "role": "master"}
    )
    scripts: dict[bytes, Any] = field(default_factory=dict)
    _lua: Any = None

    def clear(self) -> None:
        """Lose all data and scripts, as in a restart."""
        self.entries.clear()
        self.scripts.clear()

    def execute(self, command: list[bytes]) -> object:
        """Run a command; return its reply for encode(), which may be a CommandError."""
        name, *arguments = command
        try:
            match name.upper():
                case b"HELLO":
                    return self.hello
                case b"SELECT":
                    return True
                case b"EVALSHA":
                    script = self.scripts.get(arguments[0])
                    if script is None:
                        return CommandError("NOSCRIPT No matching script.")
                    return self._run(script, arguments[1:])
                case b"EVAL":
                    digest = sha1(arguments[0], usedforsecurity=False).hexdigest().encode()
                    script = self.scripts[digest] = self._runtime().compile(arguments[0])
                    return self._run(script, arguments[1:])
                case _:
                    return self.call(name, *arguments)
        except CommandError as error:
            return error

    # Scripts.

    def _runtime(self) -> Any:
        if self._lua is None:
            self._lua = lua51.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
            table = self._lua.table_from({b"call": self._call, b"pcall": self._pcall})
            self._lua.globals()[b"redis"] = table
        return self._lua

    def _run(self, script: Any, operands: list[bytes]) -> object:
        if self.error:
            raise CommandError(self.error)
        n = int(operands[0])
        variables = self._lua.globals()
        variables[b"KEYS"] = self._lua.table_from(operands[1 : n + 1])
        variables[b"ARGV"] = self._lua.table_from(operands[n + 1 :])
        return self._from_lua(script())

    def _call(self, name: bytes, *arguments: object) -> object:
        reply = self.call(name, *(_text(argument) for argument in arguments))
        if reply is None:
            return False
        if reply is True:
            return self._lua.table_from({b"ok": b"OK"})
        return self._lua.table_from(reply) if isinstance(reply, list) else reply

    def _pcall(self, name: bytes, *arguments: object) -> object:
        try:
            return self._call(name, *arguments)
        except CommandError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _from_lua(self, value: Any) -> object:
        """Convert a script's result, as the engine does."""
        if value is None or value is False:
            return None
        if isinstance(value, float | int):  # True as well
            return int(value)
        if isinstance(value, bytes):
            return value
        if (error := value[b"err"]) is not None:
            return CommandError(error.decode())
        return [self._from_lua(value[i]) for i in range(1, len(value) + 1)]

    # Commands.

    def call(self, name: bytes, *arguments: bytes) -> Any:
        """Run a command on the data; return its reply, where True is OK. Raises CommandError."""
        command = getattr(self, f"_{name.decode().lower()}", None)
        if command is None:
            raise CommandError(f"ERR unknown command '{name.decode()}'")
        return command(*arguments)

    def find(self, key: bytes) -> Entry | None:
        """Return the entry of a key that has not expired."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry.expires > self.now() else None

    def left(self, key: bytes) -> int:
        """Return the milliseconds left to a key: -1 if it does not expire, -2 if there is none."""
        entry = self.find(key)
        if entry is None:
            return -2
        return -1 if entry.expires == inf else round((entry.expires - self.now()) * 1000)

    def put(self, key: bytes, value: bytes, left: float = inf) -> None:
        """Write a key. left: the milliseconds until it expires."""
        self.entries[key] = Entry(value, self.now() + left / 1000, self.now())

    def _ping(self) -> bytes:
        return b"PONG"

    def _string(self, key: bytes) -> bytes | None:
        entry = self.find(key)
        if entry is not None and not isinstance(entry.value, bytes):
            raise CommandError(WRONG_TYPE)
        return None if entry is None else entry.value  # type: ignore[return-value]  # a string

    def _set_of(self, key: bytes) -> dict[bytes, float]:
        entry = self.find(key)
        if entry is not None and isinstance(entry.value, bytes):
            raise CommandError(WRONG_TYPE)
        return {} if entry is None else entry.value  # type: ignore[return-value]  # a sorted set

    def _write(self, takes_memory: bool = True) -> None:
        """Check that the engine accepts a write."""
        if self.hello["role"] != "master":
            raise CommandError(READONLY)
        if self.is_full and takes_memory:
            raise CommandError(OOM)

    _get = _string

    def _strlen(self, key: bytes) -> int:
        return len(self._string(key) or b"")

    _pttl = left

    def _set(self, key: bytes, value: bytes, option: bytes, left: bytes = b"") -> bool:
        self._write()
        if option == b"KEEPTTL":
            entry = self.find(key)
            self.entries[key] = Entry(value, inf if entry is None else entry.expires, self.now())
        elif option == b"PX" and int(left) > 0:
            self.put(key, value, int(left))
        else:
            raise CommandError("ERR syntax error")
        return True

    def _publish(self, channel: bytes, message: bytes) -> int:
        self.publish(channel, message)
        return 1

    def _time(self) -> list[bytes]:
        seconds, fraction = divmod(self.now(), 1)
        return [b"%d" % seconds, b"%d" % (fraction * 1e6)]

    def _zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        self._write()
        members = self._set_of(key)
        is_new = member not in members
        members[member] = float(score)
        if self.find(key) is None:
            self.entries[key] = Entry(members, inf, self.now())
        return int(is_new)

    def _expire(self, key: bytes, seconds: bytes) -> int:
        self._write(takes_memory=False)
        entry = self.find(key)
        if entry is not None:
            entry.expires = self.now() + int(seconds)
        return int(entry is not None)

    def _zremrangebyscore(self, key: bytes, least: bytes, most: bytes) -> int:
        self._write(takes_memory=False)
        members = self._set_of(key)
        old = [member for member, score in members.items() if float(least) <= score <= float(most)]
        for member in old:
            del members[member]
        return len(old)

    def _zrevrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        members = self._set_of(key)
        ordered = sorted(members, key=lambda member: (members[member], member), reverse=True)
        return ordered[int(first) : int(last) + 1]


def _text(value: object) -> bytes:
    """Return an argument of redis.call() as the engine reads it."""
    if isinstance(value, bytes):
        return value
    assert isinstance(value, float | int), value
    return b"%.17g" % value


def encode(value: object) -> bytes:
    """Encode a reply in RESP3: https://redis.io/docs/latest/develop/reference/protocol-spec/."""
    match value:
        case CommandError():
            return b"-%b\r\n" % str(value).encode()
        case None:
            return b"_\r\n"
        case True:
            return b"+OK\r\n"
        case dict():
            return b"%%%d\r\n" % len(value) + b"".join(encode(part) for item in value.items() for part in item)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encode, value))
        case int():
            return b":%d\r\n" % value
        case str():
            return encode(value.encode())
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
    raise TypeError(value)


def encode_push(*parts: object) -> bytes:
    """Encode a message that is not the reply to a command."""
    return b">%d\r\n" % len(parts) + b"".join(map(encode, parts))
