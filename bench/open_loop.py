"""A client that sends requests when they are due, whether or not responses have arrived (an open loop).

A response's time is counted from the moment when its request was due, as wrk2 does. Clients that wait for a response
before they send the next request send few while the server is slow, and so hardly measure that it is. h2load --rps
sends the requests of all connections at the same moments, and counts from when a request was sent.
"""

import gc
import multiprocessing
import random
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from load import BoardRequests, pin_to_client_core

TIMEOUT_SECONDS = 20.0
MAX_BACKLOG_SECONDS = 10.0
"""Time from when a request was due after which the server counts as overloaded, and no more are sent."""

SAMPLE = 50
"""One response in so many has its body checked."""


@dataclass(frozen=True)
class Latencies:
    """The seconds from when requests were due to the end of their responses, sorted.

    late: those from when they were due, or a connection was free, to when the client sent them, sorted: what the
    client and the machine add.
    """

    times: Sequence[float]
    late: Sequence[float]
    size: float
    """Mean bytes of a response."""

    is_overloaded: bool
    """Whether requests were not sent, since others had waited for MAX_BACKLOG_SECONDS."""

    def quantile(self, q: float) -> float:
        """Return a quantile of the times; 1.0 is the maximum."""
        return _quantile(self.times, q)

    def late_quantile(self, q: float) -> float:
        """Return a quantile of what the client and the machine add."""
        return _quantile(self.late, q)


def _quantile(times: Sequence[float], q: float) -> float:
    return times[min(len(times) - 1, int(len(times) * q))]


def open_loop(port: int, boards: BoardRequests, rate: float, seconds: float, connections: int = 20) -> Latencies:
    """Send requests for random paths at random moments, so many per second, from a process on the client's core."""
    rng = random.Random()
    gaps = (rng.expovariate(rate) for _ in range(int(rate * seconds)))
    return _run(port, boards, list(gaps), connections)


def request_each(port: int, boards: BoardRequests, connections: int = 20) -> Latencies:
    """Request each board once, as fast as the server responds, from a process on the client's core."""
    return _run(port, boards, [], connections)


def _run(port: int, boards: BoardRequests, gaps: list[float], connections: int) -> Latencies:
    context = multiprocessing.get_context("spawn")  # without open files: select() takes only low numbers
    with ProcessPoolExecutor(1, context, initializer=pin_to_client_core) as executor:
        return executor.submit(_client, port, boards, gaps, connections).result()


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.data = b""
        self.end = 0


def _client(port: int, boards: BoardRequests, gaps: Iterable[float], n_connections: int) -> Latencies:
    """Send requests; without gaps, each board once, when a connection is free."""
    requests = boards.requests()
    poller = select.epoll()
    connections = {}
    for _ in range(n_connections):
        connection = _Connection(port)
        connections[connection.socket.fileno()] = connection
        poller.register(connection.socket, select.EPOLLIN)
    free = deque(connections.values())
    times, late = array("d"), array("d")
    rng, clock = random.Random(), time.perf_counter
    start = clock() + 0.01
    dues = array("d", [start])
    for gap in gaps:
        dues.append(dues[-1] + gap)
    is_open = len(dues) > 1
    count = len(dues) if is_open else len(requests)
    n_sent, size, last_free = 0, 0, start
    gc.disable()
    while len(times) < count:
        now = clock()
        while free and n_sent < count and (not is_open or dues[n_sent] <= now):
            connection = free.popleft()
            connection.due = dues[n_sent] if is_open else now
            late.append(now - max(connection.due, last_free))
            connection.socket.sendall(rng.choice(requests) if is_open else requests[n_sent])
            n_sent += 1
            now = clock()
        if is_open and n_sent < count and now - dues[n_sent] > MAX_BACKLOG_SECONDS:
            count = n_sent
        wait = dues[n_sent] - now if is_open and free and n_sent < count else TIMEOUT_SECONDS
        if wait > 0 and not select.select([poller], [], [], wait)[0] and wait == TIMEOUT_SECONDS:
            raise SystemExit("the server does not respond")
        for descriptor, _ in poller.poll(0):  # whose own timeouts are whole milliseconds
            connection = connections[descriptor]
            received = connection.socket.recv(1 << 18)
            if not received:
                raise SystemExit("the server closed the connection")
            data = connection.data + received
            if not connection.end:
                connection.end = boards.response_length(data)
            if not connection.end or len(data) < connection.end:
                connection.data = data
                continue
            now = clock()
            if not free:
                last_free = now
            times.append(now - connection.due)
            if len(times) % SAMPLE == 0 or not is_open:
                boards.check(data)
            size += len(data)
            connection.data, connection.end = b"", 0
            free.append(connection)
    is_overloaded = is_open and count < len(dues)
    return Latencies(array("d", sorted(times)), array("d", sorted(late)), size / count, is_overloaded)
