"""The kernel's side of sockets, in memory: latency, small buffers, partial writes, half-close, resets.

The program's own transports (Twisted's, with govi_server.sockets around them) call these sockets as those of the
kernel, and poll them through SimulatedReactor or Epoll. Users and gateways of the world use them directly.
"""

import select
import socket
from collections import deque
from collections.abc import Callable
from errno import EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, EISCONN, EPIPE
from functools import partial
from os import strerror
from random import Random
from typing import Any

from tests.simulation.scheduler import Event, Scheduler

FIRST_FILE = 1 << 20
"""The first file descriptor: none of the process is so large."""

BUFFER_BYTES = 1 << 16
"""Bytes that a connection holds in one direction: sent, and not yet read."""

Address = tuple[str, int]


def _error(number: int) -> OSError:
    return OSError(number, strerror(number))


class File:
    """Something with a descriptor that can be polled. Watchers are called when it may have become ready."""

    def __init__(self, network: "Network") -> None:
        self.network = network
        self.number = network.add_file(self)
        self.watchers: list[Callable[[], object]] = []

    def fileno(self) -> int:
        return self.number

    def events(self) -> int:
        """Return what it is ready for, as epoll does."""
        raise NotImplementedError

    def changed(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()

    def close(self) -> None:
        self.network.files.pop(self.number, None)
        self.number = -1
        self.watchers.clear()


class Socket(File):
    """One end of a connection, with the methods of socket.socket that Twisted's transports call."""

    def __init__(self, network: "Network", local: Address, remote: Address) -> None:
        super().__init__(network)
        self.local = local
        self.remote = remote
        self.peer: Socket | None = None
        self.connecting = False
        self.error = 0
        self.inbox = bytearray()
        self.capacity = BUFFER_BYTES
        self.got_eof = False
        """Whether the peer has ended its sending side."""
        self.was_reset = False
        self.sent_eof = False
        self.closed = False
        self.latency = network.latency()
        self._resets_on_close = False
        self._in_flight = 0
        self.is_blocked = False
        """Whether the peer must read before more can be sent."""
        self._arrival = 0.0
        self.received_bytes = 0

    # What Twisted's transports call.

    def setblocking(self, blocking: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self._resets_on_close = True

    def getsockopt(self, level: int, option: int, *size: int) -> int:
        if option == socket.SO_ERROR:
            error, self.error = self.error, 0
            return error
        return 0

    def getsockname(self) -> Address:
        return self.local

    def getpeername(self) -> Address:
        return self.remote

    def bind(self, address: Address) -> None:
        pass

    def connect_ex(self, address: Address) -> int:
        if self.peer is not None:
            return EISCONN
        if not self.connecting:
            self.remote = address
            self.network.connect_later(self)
        return EINPROGRESS

    def recv(self, size: int) -> bytes:
        if self.was_reset:
            raise _error(ECONNRESET)
        if not self.inbox:
            if self.got_eof:
                return b""
            raise _error(EAGAIN)
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        peer = self.peer
        if peer is not None and peer.is_blocked:
            peer.is_blocked = False
            self.network.scheduler.after(self.latency, peer.changed)
        return data

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        peer = self.peer
        if self.was_reset or self.sent_eof or self.closed:
            raise _error(EPIPE)
        if peer is None:
            raise _error(EAGAIN)
        room = peer.capacity - len(peer.inbox) - self._in_flight
        self.is_blocked = room <= len(data)
        if room <= 0:
            raise _error(EAGAIN)
        size = min(len(data), room)
        if size > 1 and self.network.cuts_writes():
            size = 1 + int(self.network.random.random() * (size - 1))
            self.network.scheduler.after(0, self.changed)
        self._in_flight += size
        for part in self.network.packets(bytes(data[:size])):
            self._transmit(self._arrive, part)
        return size

    def shutdown(self, how: int) -> None:
        if self.peer is None:
            raise _error(EPIPE)
        if not self.sent_eof and not self.closed:
            self.sent_eof = True
            self._transmit(self._end)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        super().close()
        self.network.sockets.discard(self)
        if self.peer is None:
            return
        if self._resets_on_close or self.inbox:
            self._transmit(self._reset)
        elif not self.sent_eof:
            self.sent_eof = True
            self._transmit(self._end)
        else:
            self._transmit(self._hang_up)

    # The way to the peer, in order.

    def _transmit(self, arrive: Callable[..., object], *arguments: object) -> None:
        now = self.network.scheduler.now
        self._arrival = max(self._arrival, now + self.latency)
        self.network.scheduler.at(self._arrival, arrive, *arguments)

    def _arrive(self, data: bytes) -> None:
        self._in_flight -= len(data)
        peer = self.peer
        assert peer is not None
        if peer.closed:
            if not self.was_reset:  # the kernel answers bytes for a closed socket with RST
                peer._transmit(peer._reset)
            return
        if not peer.was_reset:
            peer.inbox += data
            peer.received_bytes += len(data)
            peer.changed()

    def _end(self) -> None:
        if self.peer is not None and not self.peer.closed:
            self.peer.got_eof = True
            self.peer.changed()

    def _hang_up(self) -> None:
        if self.peer is not None and not self.peer.closed:
            self.peer.changed()

    def _reset(self) -> None:
        """The peer learns that the connection was reset."""
        if self.peer is not None and not self.peer.closed and not self.peer.was_reset:
            self.peer.was_reset = True
            self.peer.inbox.clear()
            self.peer.changed()

    def abort(self) -> None:
        """Reset the connection, as a peer whose machine restarts."""
        self._resets_on_close = True
        self.close()

    def events(self) -> int:
        if self.connecting:
            return select.EPOLLOUT | select.EPOLLERR if self.error else 0
        if self.was_reset:
            return select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP
        peer = self.peer
        if peer is None:
            return 0
        events = select.EPOLLIN if self.inbox or self.got_eof else 0
        if self.sent_eof and self.got_eof:
            events |= select.EPOLLHUP
        if peer.capacity - len(peer.inbox) - self._in_flight > 0 or self.sent_eof:
            events |= select.EPOLLOUT
        return events


class ListeningSocket(File):
    """A socket that listens."""

    def __init__(self, network: "Network", host: str) -> None:
        super().__init__(network)
        self._host = host
        self.address: Address = ("", 0)
        self.queue: deque[Socket] = deque()
        self.closed = False

    def setblocking(self, blocking: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        pass

    def bind(self, address: Address) -> None:
        port = address[1] or self.network.free_port()
        self.address = (self._host, port)
        if self.address in self.network.listening:
            raise _error(EADDRINUSE)
        self.network.listening[self.address] = self

    def listen(self, backlog: int) -> None:
        pass

    def getsockname(self) -> Address:
        return self.address

    def accept(self) -> tuple[Socket, Address]:
        if not self.queue:
            raise _error(EAGAIN)
        sock = self.queue.popleft()
        self.network.on_accept(sock)
        return sock, sock.remote

    def shutdown(self, how: int) -> None:
        pass

    def events(self) -> int:
        return select.EPOLLIN if self.queue else 0

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.network.listening.pop(self.address, None)
            super().close()
            for sock in list(self.queue):
                sock.abort()
            self.queue.clear()


class Epoll(File):
    """An epoll object: a descriptor that is readable while one that it watches is ready."""

    def __init__(self, network: "Network") -> None:
        super().__init__(network)
        self._masks: dict[int, int] = {}
        self._changed: dict[int, None] = {}
        """Those that were ready when they were last polled, or have changed since."""
        self._watchers: dict[int, Callable[[], object]] = {}

    def register(self, number: int, mask: int) -> None:
        self._masks[number] = mask
        self._watchers[number] = watcher = partial(self._note, number)
        self.network.files[number].watchers.append(watcher)
        self._note(number)

    def modify(self, number: int, mask: int) -> None:
        self._masks[number] = mask
        self._note(number)

    def unregister(self, number: int) -> None:
        del self._masks[number]
        self._changed.pop(number, None)
        watcher, file = self._watchers.pop(number), self.network.files.get(number)
        if file is not None and watcher in file.watchers:
            file.watchers.remove(watcher)

    def _note(self, number: int) -> None:
        if self._ready(number):
            self._changed[number] = None
            self.changed()

    def _ready(self, number: int) -> int:
        file = self.network.files.get(number)
        if file is None:
            return 0
        return file.events() & (self._masks[number] | select.EPOLLERR | select.EPOLLHUP)

    def poll(self, timeout: float = 0, maxevents: int = -1) -> list[tuple[int, int]]:
        ready = [(number, events) for number in self._changed if (events := self._ready(number))]
        self._changed = dict.fromkeys(number for number, _ in ready)
        return ready[:maxevents] if maxevents > 0 else ready

    def events(self) -> int:
        return select.EPOLLIN if any(map(self._ready, self._changed)) else 0


class Network:
    """All machines. conditions of the network are attributes that faults set."""

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self.scheduler = scheduler
        self.random = random
        self.files: dict[int, File] = {}
        self.sockets: set[Socket] = set()
        self.listening: dict[Address, ListeningSocket] = {}
        self._next_file = FIRST_FILE
        self._next_port = 32768
        self.slowest = 0.02
        """The latency of the slowest connections in seconds."""
        self.cut_fraction = 0.02
        """Of writes, of which the kernel takes only a part."""
        self.packet_fraction = 0.05
        """Of writes, which arrive in several pieces."""
        self.on_accept: Callable[[Socket], object] = lambda sock: None
        self.unreachable: set[Address] = set()
        """Addresses that do not answer to a connection at all."""

    def add_file(self, file: File) -> int:
        self._next_file += 1
        self.files[self._next_file] = file
        return self._next_file

    def free_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def latency(self) -> float:
        return 0.0001 + self.slowest * self.random.random() ** 3

    def cuts_writes(self) -> bool:
        return self.random.random() < self.cut_fraction

    def packets(self, data: bytes) -> list[bytes]:
        """Return the pieces in which data arrives."""
        if len(data) < 2 or self.random.random() >= self.packet_fraction:
            return [data]
        cut = 1 + int(self.random.random() * (len(data) - 1))
        return [data[:cut], data[cut:]]

    def socket(self, host: str) -> Socket:
        """Return a socket of a machine that can connect."""
        sock = Socket(self, (host, self.free_port()), ("", 0))
        self.sockets.add(sock)
        return sock

    def connect_later(self, sock: Socket) -> Event:
        """Connect a socket to its remote address, after its latency."""
        sock.connecting = True
        return self.scheduler.after(sock.latency, self._connect, sock)

    def _connect(self, sock: Socket) -> None:
        if sock.closed or sock.remote in self.unreachable:
            return
        listening = self.listening.get(sock.remote)
        if listening is None:
            sock.error = ECONNREFUSED
        else:
            sock.connecting = False
            peer = Socket(self, sock.remote, sock.local)
            peer.latency = sock.latency
            self.sockets.add(peer)
            sock.peer, peer.peer = peer, sock
            listening.queue.append(peer)
            listening.changed()
        sock.changed()

    def close_machine(self, host: str) -> None:
        """Close the sockets of a machine, as the kernel does when a process is killed."""
        for file in list(self.files.values()):
            if isinstance(file, ListeningSocket) and file.address[0] == host:
                file.close()
            elif isinstance(file, Socket) and file.local[0] == host:
                file.abort() if file.inbox else file.close()
