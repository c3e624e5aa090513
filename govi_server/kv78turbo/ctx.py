r"""CTX, the text that KV7 and KV8 come in: tables of records (docs/protocols.md 2.1). Pure: no files, no sockets, no clock.

A record stays the bytes that it came in, which is fast and small; text() reads one of its fields. The lines:
``\G`` group (label, name, subscription, path, endian, encoding, version, timestamp), ``\T`` a table begins, ``\L``
its labels, anything else a record, its fields between ``|``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

NULL = b"\\0"
"""A field that has no value, which is not the same as an empty one."""

LINE_LIMIT = 1 << 16
"""Bytes of one line: the longest of the captures has less than a thousand."""

PIECE = 1 << 15
"""Bytes that are read before there is something to yield: about a hundred records, a millisecond's work."""

_MEANINGS = {b"p": b"|", b"r": b"\r", b"n": b"\n", b"i": b"\\"}
_ESCAPES = {ord("|"): r"\p", ord("\r"): r"\r", ord("\n"): r"\n", ord("\\"): r"\i"}
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
# A record all of whose escapes are known: \0 stands alone in its field.
_FIELD = rb"(?:\\0|(?:[^\\|]|\\[prni])*)"
_RECORD = re.compile(rb"%b(?:\|%b)*" % (_FIELD, _FIELD), re.DOTALL)


class Group(NamedTuple):
    """What the records that follow belong to; "" for what is not said."""

    label: str = ""
    subscription: str = ""
    timestamp: str = ""
    """When it was published: 2021-06-06T18:26:05+02:00."""


class Records(NamedTuple):
    """Some records of a table, each with a field for every label."""

    group: Group
    table: str
    labels: tuple[str, ...]
    lines: list[bytes]


def text(field: bytes) -> str | None:
    """Read a field of a record; None for null."""
    if field == NULL:
        return None
    if b"\\" in field:
        field = _ESCAPE.sub(lambda escape: _MEANINGS[escape[1]], field)
    return field.decode()


def read_group(message: bytes) -> Group:
    r"""Read the \G line that a message begins with; all is "" if it begins otherwise."""
    line = message.partition(b"\n")[0].rstrip(b"\r")
    fields = line[2:].decode(errors="replace").split("|") if line.startswith(b"\\G") else []
    fields += [""] * 8
    return Group(fields[0], fields[2], fields[7])


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut a message into pieces to be read one by one."""
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def read(chunks: Iterable[bytes], refused: Callable[[str], object]) -> Iterator[Records]:
    """Read CTX as it comes, whatever the chunks are; yields the records of each chunk by table.

    A table may come any number of times. Records that cannot be read are left out, and refused is called for each
    with why: "columns", "escape", "encoding", "labels" (there are none), "length". For a long chunk that has none to
    yield it yields no records, so that a reader who shares his time is asked for it there, too.
    """
    reader = _Reader(refused)
    rest = b""
    for chunk in chunks:
        rest += chunk
        body, newline, rest = rest.rpartition(b"\n")
        if newline:
            found = False
            for records in reader.read(body):
                found = True
                yield records
            if not found and len(body) >= PIECE // 2:
                yield reader.nothing()
        if len(rest) > LINE_LIMIT:
            reader.skip()
            rest = b""
    yield from reader.read(rest)


class _Reader:
    """What was read last: the group, the table and its labels."""

    def __init__(self, refused: Callable[[str], object]) -> None:
        self._refused = refused
        self._group = Group()
        self._table = ""
        self._labels: tuple[str, ...] = ()
        self._skips = False

    def skip(self) -> None:
        """Leave out the line that is being read: it is too long."""
        if not self._skips:
            self._refused("length")
        self._skips = True

    def nothing(self) -> Records:
        """Give no records of what was read last."""
        return Records(self._group, self._table, self._labels, [])

    def read(self, body: bytes) -> Iterator[Records]:
        """Read whole lines, the last one without its end."""
        separators = len(self._labels) - 1
        is_text, may_be_long = _is_text(body), len(body) > LINE_LIMIT
        found: list[bytes] = []
        for line in body.split(b"\n"):
            if self._skips:  # this is the end of it
                self._skips = False
                continue
            if may_be_long and len(line) > LINE_LIMIT:
                self._refused("length")
                continue
            if line[-1:] == b"\r":
                line = line[:-1]
            if line[:1] == b"\\" and line[1:2] in (b"G", b"T", b"L"):
                if found:
                    yield Records(self._group, self._table, self._labels, found)
                    found = []
                self._control(line)
                separators = len(self._labels) - 1
            elif not line:
                pass
            elif separators < 0:
                self._refused("labels")
            elif line.count(b"|") != separators:
                self._refused("columns")
            elif not is_text and not _is_text(line):
                self._refused("encoding")
            elif not _is_plain(line) and not _RECORD.fullmatch(line):
                self._refused("escape")
            else:
                found.append(line)
        if found:
            yield Records(self._group, self._table, self._labels, found)

    def _control(self, line: bytes) -> None:
        kind, fields = line[1:2], line[2:].decode(errors="replace").split("|")
        if kind == b"L":
            self._labels = tuple(fields)
            return
        self._labels = ()
        if kind == b"T":
            self._table = fields[0]
        else:
            self._group, self._table = read_group(line), ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(line: bytes) -> bool:
    r"""Tell whether the only escapes of a record are \0, each alone in its field; quick, for nearly all are so."""
    escapes = line.count(b"\\")
    if not escapes:
        return True
    ended = line.count(b"\\0|") + line.endswith(NULL)
    return escapes == line.count(b"|\\0") + line.startswith(NULL) == ended


Table = tuple[str, Sequence[str], Iterable[Sequence[str | None]]]
"""A table to write: its name, its labels, and its rows with a value for each label, None for null."""


def write(label: str, subscription: str, timestamp: str, tables: Iterable[Table]) -> bytes:
    """Write a message: one group with its tables, in the form of the captures (CRLF, U+FEFF ends the group line)."""
    lines = [f"\\G{label}|{label}|{subscription}|||UTF-8|0.1|{timestamp}|\ufeff"]
    for name, labels, rows in tables:
        lines.append(f"\\T{name}|{name}|start object")
        lines.append("\\L" + "|".join(labels))
        lines.extend("|".join(r"\0" if value is None else value.translate(_ESCAPES) for value in row) for row in rows)
    return "".join(f"{line}\r\n" for line in lines).encode()
