"""Connections of the world's users and gateways: raw sockets, and their own reading of HTTP/1.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EAGAIN

from tests.simulation.network import Address, Network, Socket


class Wire:
    """One end of a connection. The callbacks are attributes that its owner sets."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.is_open = sock.peer is not None
        self.ended = False
        """Whether the other side has ended its sending side, or reset the connection, or refused it."""
        self.end = ""
        """How: "eof", "reset" or "refused"."""
        self.closed = False
        """Whether this side has closed the connection."""
        self.paused = False
        self.on_open: Callable[[], object] = lambda: None
        self.on_data: Callable[[bytes], object] = lambda data: None
        self.on_end: Callable[[], object] = lambda: None
        self._outbox = b""
        sock.watchers.append(self._changed)

    @classmethod
    def connect(cls, network: Network, host: str, address: Address) -> Wire:
        """Return a wire from a machine to an address, which is not open yet."""
        sock = network.socket(host)
        wire = cls(sock)
        sock.connect_ex(address)
        return wire

    def begin(self) -> None:
        """Read what arrived before the callbacks were set."""
        self._changed()

    def send(self, data: bytes) -> None:
        self._outbox += data
        self._flush()

    def _flush(self) -> None:
        while self._outbox and self.is_open and not self.closed:
            try:
                sent = self.sock.send(self._outbox)
            except OSError as error:
                if error.errno != EAGAIN:
                    self._outbox = b""
                return
            self._outbox = self._outbox[sent:]

    def half_close(self) -> None:
        if self.is_open and not self.closed:
            self.sock.shutdown(1)

    def close(self) -> None:
        """Close both sides; the kernel resets the connection if bytes were not read."""
        if not self.closed:
            self.closed = True
            self.sock.close()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.sock.abort()

    def resume(self) -> None:
        self.paused = False
        self._changed()

    def _changed(self) -> None:
        if self.closed or self.ended:
            return
        sock = self.sock
        if sock.connecting:
            if sock.error:
                self._end("refused")
            return
        if not self.is_open:
            if sock.peer is None:
                return
            self.is_open = True
            self.on_open()
        if sock.was_reset:
            self._end("reset")
            return
        if self._outbox:
            self._flush()
        while not self.paused and not self.closed:
            if sock.inbox:
                self.on_data(sock.recv(1 << 16))
            elif sock.got_eof:
                self._end("eof")
                return
            else:
                return

    def _end(self, how: str) -> None:
        self.ended = True
        self.end = how
        self.on_end()
        if how != "eof":
            self.close()


@dataclass(slots=True, eq=False)
class Message:
    """A request or a response: its first line, header fields by lower-case name, and body."""

    first_line: str
    fields: dict[str, str]
    body: bytes = b""
    size: int = 0
    """Bytes of the body, of which a stream keeps none."""

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.first_line.split(" ")[1])


@dataclass(slots=True)
class Reader:
    """Reads messages from bytes. method: called for the method that the next response is for."""

    on_message: Callable[[Message], object]
    on_part: Callable[[Message, bytes], object] = lambda message, data: None
    """Called with each part of a body that ends with its connection."""
    method: Callable[[], str] = lambda: "POST"
    buffer: bytes = b""
    message: Message | None = None
    _remaining: int | None = field(default=0)

    def feed(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer:
            if self.message is None:
                head, end, rest = self.buffer.partition(b"\r\n\r\n")
                if not end:
                    return
                self.buffer = rest
                self._begin(head.decode("latin-1"))
            if self.message is not None:
                if self._remaining is None:
                    part, self.buffer = self.buffer, b""
                    self.message.size += len(part)
                    self.on_part(self.message, part)
                    return
                part, self.buffer = self.buffer[: self._remaining], self.buffer[self._remaining :]
                self.message.body += part
                self.message.size += len(part)
                self._remaining -= len(part)
                if self._remaining == 0:
                    self._finish()

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        fields = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, f"field line {line!r}"
            fields[name.lower()] = value.strip()
        self.message = message = Message(first, fields)
        is_response = first.startswith("HTTP/")
        if is_response and message.status // 100 == 1:
            self.message = None
            return
        has_no_body = is_response and (self.method() == "HEAD" or message.status in (204, 304))
        length = fields.get("content-length")
        self._remaining = 0 if has_no_body else int(length) if length is not None else None if is_response else 0
        if self._remaining == 0:
            self._finish()

    def _finish(self) -> None:
        message, self.message = self.message, None
        assert message is not None
        self.on_message(message)

    def end(self) -> None:
        """The connection has ended, and with it a body without a length."""
        if self.message is not None and self._remaining is None:
            self._finish()
