"""Faults of the simulated feed: messages that are corrupt, repeated or out of order. Pure.

Lost responses of the simulated gateway are in gateway.GatewayBehaviour.
"""

import gzip
import re
from random import Random

from msgspec import Struct

from govi_server.simulator.town_feed import Message


class FeedFaults(Struct, frozen=True):
    """The fractions of messages with a fault, from 0 to 1."""

    garbage: float = 0.0
    """Messages that are replaced by corrupt ones."""
    duplicate: float = 0.0
    """Messages that are sent twice."""
    out_of_order: float = 0.0
    """Messages that are sent after some later ones."""


class FaultInjector:
    """Turns messages into the ZeroMQ messages to send, some with faults; the same seed produces the same faults."""

    def __init__(self, faults: FeedFaults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._held_back: list[tuple[int, list[bytes]]] = []  # (messages to wait for, frames)

    def frames(self, message: Message) -> list[list[bytes]]:
        """Return the ZeroMQ messages to send for a message, and those that were held back until now."""
        garbage, duplicate, out_of_order = (self._random.random() for _ in range(3))
        if garbage < self._faults.garbage and message.payload is None:
            corrupt = self._random.choice(_CORRUPTIONS)
            frames = _frames(message.envelope, corrupt(message.ctx, self._random))
        else:
            frames = _frames(message.envelope, message.payload or _compress(message.ctx))
        sent = [frames] * (2 if duplicate < self._faults.duplicate else 1)
        held_back = [(after - 1, frames) for after, frames in self._held_back]
        if out_of_order < self._faults.out_of_order:
            held_back.append((self._random.randint(1, 5), sent.pop()))
        self._held_back = [(after, frames) for after, frames in held_back if after > 0]
        return sent + [frames for after, frames in held_back if after <= 0]

    def release(self) -> list[list[bytes]]:
        """Return the ZeroMQ messages that are still held back, to send at the end."""
        held_back, self._held_back = self._held_back, []
        return [frames for _, frames in held_back]


def _frames(envelope: str, payload: bytes) -> list[bytes]:
    """Return a ZeroMQ message of envelope and payload, a large payload in two frames."""
    half = len(payload) // 2
    return [envelope.encode(), payload] if half < 2048 else [envelope.encode(), payload[:half], payload[half:]]


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


_RECORD = re.compile(rb"^(?!\\[GTL])[^\r\n]+", re.MULTILINE)


def _noise(data: bytes, random: Random) -> bytes:
    return _compress(data)[:10] + random.randbytes(200)


def _truncated(data: bytes, random: Random) -> bytes:
    payload = _compress(data)
    return payload[: random.randrange(len(payload))] or payload[:1]


def _wrong_encoding(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(rb"\g<0>" + b"\xeb", data))


def _missing_columns(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(lambda record: record[0].rpartition(b"|")[0], data))


def _impossible_times(data: bytes, random: Random) -> bytes:
    return _compress(re.sub(rb"(?<=\|)\d\d:\d\d:\d\d(?=\|)", b"99:99:99", data))


_CORRUPTIONS = (_noise, _truncated, _wrong_encoding, _missing_columns, _impossible_times)
