"""What goes wrong on the way of a feed: messages that are spoilt, said twice, or in the wrong order. Pure."""

import gzip
import re
from random import Random

from msgspec import Struct

from govi_server.simulator.town_feed import Message


class Faults(Struct, frozen=True):
    """What goes wrong on the way, as fractions of the messages, from 0 to 1."""

    garbage: float = 0.0
    """Messages in whose place nonsense comes."""
    duplicate: float = 0.0
    """Messages that come twice."""
    out_of_order: float = 0.0
    """Messages that come after some later ones."""


class Way:
    """The way of messages to the socket, on which some are spoilt: the same ones for the same random numbers."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._held: list[tuple[int, list[bytes]]] = []  # after how many messages, and what

    def frames(self, message: Message) -> list[list[bytes]]:
        """Give the ZeroMQ messages to send for a message: itself, more, or none for now."""
        draws = [self._random.random() for _ in range(3)]
        if draws[0] < self._faults.garbage and message.payload is None:
            spoil = self._random.choice(_SPOILS)
            frames = _frames(message.envelope, spoil(message.ctx, self._random))
        else:
            frames = _frames(message.envelope, message.payload or _compress(message.ctx))
        sent = [frames] * (2 if draws[1] < self._faults.duplicate else 1)
        held = [(after - 1, frames) for after, frames in self._held]
        if draws[2] < self._faults.out_of_order:
            held.append((self._random.randint(1, 5), sent.pop()))
        self._held = [(after, frames) for after, frames in held if after > 0]
        return sent + [frames for after, frames in held if after <= 0]

    def rest(self) -> list[list[bytes]]:
        """Give what is still kept back."""
        held, self._held = self._held, []
        return [frames for _, frames in held]


def _frames(envelope: str, payload: bytes) -> list[bytes]:
    """Make a message of the envelope and its payload, a large one in two frames."""
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


def _badly_encoded(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(rb"\g<0>" + b"\xeb", data))  # of another encoding


def _of_few_columns(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(lambda record: record[0].rpartition(b"|")[0], data))


def _out_of_time(data: bytes, random: Random) -> bytes:
    return _compress(re.sub(rb"(?<=\|)\d\d:\d\d:\d\d(?=\|)", b"99:99:99", data))


_SPOILS = (_noise, _truncated, _badly_encoded, _of_few_columns, _out_of_time)
