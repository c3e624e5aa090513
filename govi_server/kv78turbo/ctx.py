r"""CTX, the text format of KV7 and KV8: tables of records (docs/protocols.md, section 2.1).

Records stay bytes, which is fast and compact; text() decodes a field. A line that begins with ``\G`` starts a group
(label, name, subscription, path, endian, encoding, version, timestamp), one with ``\T`` starts a table, and one with
``\L`` has its labels. All others are records, with fields separated by ``|``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

NULL = b"\\0"
"""A field without a value, as opposed to an empty one."""

KEY_FIELD = rb"[^|\\!-~]*+[!-\[\]-{}~][^|\\]*"
"""A regular expression for a field of a key: neither null, escaped nor blank, since it has a visible ASCII character.

The quantifier of its beginning is possessive, because a search of all beginnings would take quadratic time.
"""

FICTIONAL = "FICTIONAL"
"""The name of groups that are not about real vehicles, as the simulator's; that of real ones is their label."""

MAX_LINE_BYTES = 1 << 16
"""Longer lines are rejected: the longest one in the captures has less than 1,000 bytes."""

CHUNK_BYTES = 1 << 15
"""Maximum bytes parsed per step: about a hundred records."""

STEP_LINES = 64
"""Maximum lines parsed per step: a millisecond of work, or two if all of them are ingested."""

MAX_LABELS = 256
"""Tables with more columns are rejected: KV8 has 65."""

MAX_LABEL_CHARACTERS = 64
"""Tables with longer labels are rejected: the longest in the captures has 29 characters."""

MAX_GROUP_TEXT_CHARACTERS = 64
"""Texts of a group are truncated: the longest in the captures has 29 characters."""

Reject = Callable[[str], object]
"""Counts and logs a rejected record; the argument is a key of feed.REJECT_REASONS."""

_MEANINGS = {"p": "|", "r": "\r", "n": "\n", "i": "\\"}
_ESCAPES = {ord("|"): r"\p", ord("\r"): r"\r", ord("\n"): r"\n", ord("\\"): r"\i"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NULL_TEXT = NULL.decode()
_CONTROL = (b"\\G", b"\\T", b"\\L")
# A record with known escapes only; \0 must be an entire field.
_FIELD = rb"(?:\\0|(?:[^\\|]|\\[prni])*)"
_VALID_FIELD = re.compile(_FIELD, re.DOTALL)
_RECORD = re.compile(rb"%b(?:\|%b)*" % (_FIELD, _FIELD), re.DOTALL)


class Group(NamedTuple):
    """A group of records; texts are "" if unknown."""

    label: str = ""
    subscription: str = ""
    timestamp: str = ""
    """The time of publication: 2021-06-06T18:26:05+02:00."""
    is_fictional: bool = False


class Records(NamedTuple):
    """Records of a table, with one field per label."""

    group: Group
    table: str
    labels: tuple[str, ...]
    lines: list[bytes]


def text(field: bytes) -> str | None:
    """Decode a field of a record; return None for null."""
    return texts(field)[0]


def texts(record: bytes) -> list[str | None]:
    """Decode all fields of a record; null is None."""
    fields = record.decode()
    if "\\" not in fields:
        return fields.split("|")  # type: ignore[return-value]  # a list without None
    return [
        None if field == _NULL_TEXT else _unescaped(field) if "\\" in field else field for field in fields.split("|")
    ]


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda escape: _MEANINGS[escape[1]], field)


def read_group(message: bytes) -> Group:
    r"""Parse the \G line at the start of a message; all texts are "" without one."""
    line = message.partition(b"\n")[0].rstrip(b"\r")
    fields = line[2:].decode(errors="replace").split("|") if line.startswith(b"\\G") else []
    fields += [""] * 8
    label, subscription, timestamp = (fields[i][:MAX_GROUP_TEXT_CHARACTERS] for i in (0, 2, 7))
    return Group(label, subscription, timestamp, fields[1] == FICTIONAL)


def chunked(data: bytes) -> Iterator[bytes]:
    """Yield a message in chunks of CHUNK_BYTES."""
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


def read(chunks: Iterable[bytes], reject: Reject) -> Iterator[Records]:
    """Parse CTX from chunks of up to CHUNK_BYTES; yield the records in steps, by table.

    A table may occur any number of times. Invalid records are rejected as "columns", "labels" (missing or invalid) or
    "length"; fields with an invalid "escape" or "encoding" are rejected alone, and null in their record. A step may
    have no records.
    """
    reader = _Reader(reject)
    rest = b""
    for chunk in chunks:
        rest += chunk
        body, newline, rest = rest.rpartition(b"\n")
        if newline:
            yield from reader.read(body)
        if len(rest) > MAX_LINE_BYTES:
            reader.skip_line()
            rest = b""
    yield from reader.read(rest)


class _Reader:
    """Parses lines; remembers the current group, table and labels."""

    def __init__(self, reject: Reject) -> None:
        self._reject = reject
        self._group = Group()
        self._table = ""
        self._labels: tuple[str, ...] = ()
        self._skips_line = False

    def skip_line(self) -> None:
        """Reject the current line, which is too long, and skip the rest of it."""
        if not self._skips_line:
            self._reject("length")
        self._skips_line = True

    def records(self, lines: list[bytes]) -> Records:
        """Return lines as records of the current table."""
        return Records(self._group, self._table, self._labels, lines)

    def read(self, body: bytes) -> Iterator[Records]:
        """Parse complete lines; the last one lacks its line end. Yields after at most STEP_LINES."""
        lines = body.split(b"\n")
        if b"\r" in body:
            lines = [line if len(line) > MAX_LINE_BYTES else line.removesuffix(b"\r") for line in lines]
        # A message begins with the lines of its group, table and labels; usually only valid records follow.
        begin = next((n for n, line in enumerate(lines) if not line.startswith(_CONTROL)), len(lines))
        yield from self._read_lines(lines[:begin], is_valid=False)
        is_valid = not self._skips_line and len(body) <= MAX_LINE_BYTES and _is_text(body)
        is_valid = is_valid and _is_plain(b"|".join(lines[begin:]))
        for start in range(begin, len(lines), STEP_LINES):
            yield from self._read_lines(lines[start : start + STEP_LINES], is_valid)

    def _read_lines(self, lines: list[bytes], is_valid: bool) -> Iterator[Records]:
        """Parse lines. is_valid: whether they are short records, with valid text and escapes."""
        separators = len(self._labels) - 1
        if is_valid and separators > 0 and {line.count(b"|") for line in lines} == {separators}:
            yield self.records(lines)
            return
        rows: list[bytes] = []
        for line in lines:
            if self._skips_line:  # the end of the skipped line
                self._skips_line = False
            elif len(line) > MAX_LINE_BYTES:
                self._reject("length")
            elif line.startswith(_CONTROL):
                if rows:
                    yield self.records(rows)
                    rows = []
                self._control(line)
                separators = len(self._labels) - 1
            elif not line:
                pass
            elif separators < 0:
                self._reject("labels")
            elif line.count(b"|") != separators:
                self._reject("columns")
            elif not _is_text(line):
                self._reject("encoding")
                rows.append(_without_invalid(line))
            elif not _is_plain(line) and not _RECORD.fullmatch(line):
                self._reject("escape")
                rows.append(_without_invalid(line))
            else:
                rows.append(line)
        if rows or len(lines) == STEP_LINES:
            yield self.records(rows)

    def _control(self, line: bytes) -> None:
        kind = line[1:2]
        if kind == b"L":
            self._labels = _read_labels(line)
            return
        self._labels = ()
        if kind == b"T":
            self._table = line[2:].partition(b"|")[0].decode(errors="replace")
        else:
            self._group, self._table = read_group(line), ""


@lru_cache(maxsize=64)  # a publisher's tables have the same labels in each message
def _read_labels(line: bytes) -> tuple[str, ...]:
    """Return the labels of a line; none if they are invalid."""
    labels = line[2:].decode(errors="replace").split("|")
    is_valid = len(labels) <= MAX_LABELS and all(len(label) <= MAX_LABEL_CHARACTERS for label in labels)
    return tuple(labels) if is_valid else ()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_invalid(line: bytes) -> bytes:
    """Return a record with null for fields that are not UTF-8 or have an unknown escape."""
    fields = line.split(b"|")
    return b"|".join(field if _VALID_FIELD.fullmatch(field) and _is_text(field) else NULL for field in fields)


def _is_plain(fields: bytes) -> bool:
    r"""Return whether all escapes in fields are \0 as entire fields: a fast check that most records pass."""
    escapes = fields.count(b"\\")
    if not escapes:
        return True
    nulls = fields.count(b"\\0|") + fields.endswith(NULL)
    return escapes == fields.count(b"|\\0") + fields.startswith(NULL) == nulls


Table = tuple[str, Sequence[str], Iterable[Sequence[str | None]]]
"""A table to write: name, labels, and rows with a value for each label, None for null."""


def write(label: str, subscription: str, timestamp: str, tables: Iterable[Table], name: str = "") -> bytes:
    """Format a message: one group with its tables, as in the captures (CRLF; U+FEFF ends the group line)."""
    lines = [f"\\G{label}|{name or label}|{subscription}|||UTF-8|0.1|{timestamp}|\ufeff"]
    for name, labels, rows in tables:
        lines.append(f"\\T{name}|{name}|start object")
        lines.append("\\L" + "|".join(labels))
        lines.extend("|".join(map(_field, row)) for row in rows)
    return "".join(f"{line}\r\n" for line in lines).encode()


@lru_cache(maxsize=4096)  # rows repeat most of their values
def _field(value: str | None) -> str:
    return _NULL_TEXT if value is None else value.translate(_ESCAPES)
