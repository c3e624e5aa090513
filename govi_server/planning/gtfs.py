"""Reads the tables of a GTFS file, a zip or a directory, row by row (gtfs.org, "GTFS Schedule Reference")."""

import csv
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import IO

MAX_TABLE_BYTES = 2 << 30
"""Unpacked size of a table: 20 million rows of stop_times.txt. Larger ones are rejected: probably a zip bomb."""

MAX_LINE_BYTES = 1 << 16
"""Bytes of a row."""

CHUNK_BYTES = 1 << 18
"""Bytes that are read and decoded at a time."""


class InvalidGtfs(Exception):
    """A file is not a valid GTFS file; the message is the reason."""


class Gtfs:
    """A GTFS file. Raises InvalidGtfs if it is neither a zip nor a directory."""

    def __init__(self, path: Path) -> None:
        self._directory = path if path.is_dir() else None
        self._zip: zipfile.ZipFile | None = None
        if self._directory is None:
            try:
                self._zip = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise InvalidGtfs(f"not a zip file ({error})") from None

    def has(self, table: str) -> bool:
        """Return whether there is a table, such as stops.txt."""
        if self._zip is not None:
            return table in self._zip.NameToInfo
        assert self._directory is not None
        return (self._directory / table).is_file()

    def rows(
        self, table: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, ...]]:
        """Yield these columns of each row, "" for missing ones and fields. Raises InvalidGtfs."""
        if not self.has(table):
            raise InvalidGtfs(f"{table} is missing")
        with self._open(table) as file:
            reader = csv.reader(_lines(file, table))
            try:
                labels = [label.strip() for label in next(reader, [])]
                if missing := [name for name in required if name not in labels]:
                    raise InvalidGtfs(f"{table}: column {missing[0]} is missing")
                width = len(labels)
                positions = [labels.index(name) if name in labels else width for name in (*required, *optional)]
                select = itemgetter(*positions)
                padding = [""] * (width + 1)
                for row in reader:
                    if len(row) != width:
                        if not row:
                            continue
                        row = (row + padding)[:width]
                    row.append("")
                    yield select(row)
            except csv.Error as error:
                raise InvalidGtfs(f"{table}: line {reader.line_num}: {error}") from None
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                raise InvalidGtfs(f"{table}: damaged ({error})") from None

    @contextmanager
    def _open(self, table: str) -> Iterator[IO[bytes]]:
        if self._zip is None:
            assert self._directory is not None
            with open(os.path.join(self._directory, table), "rb") as file:
                yield file
            return
        information = self._zip.NameToInfo[table]
        if information.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or information.flag_bits & 1:
            raise InvalidGtfs(f"{table}: encrypted, or not compressed with deflate")
        if information.file_size > MAX_TABLE_BYTES:  # no more than this is unpacked
            raise _too_large(table)
        try:
            packed = self._zip.open(information)
        except (zipfile.BadZipFile, OSError) as error:
            raise InvalidGtfs(f"{table}: damaged ({error})") from None
        with packed:
            yield packed


def _too_large(table: str) -> InvalidGtfs:
    return InvalidGtfs(f"{table}: larger than {MAX_TABLE_BYTES} bytes")


def _lines(file: IO[bytes], table: str) -> Iterator[str]:
    """Yield the lines of a table, without their ends. Raises InvalidGtfs."""
    size, rest = 0, b""
    is_first = True
    while chunk := file.read(CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_TABLE_BYTES:
            raise _too_large(table)
        whole, separator, end = chunk.rpartition(b"\n")
        if separator:
            yield from _decode(rest + whole, table, is_first)
            is_first, rest = False, end
        else:
            rest += end
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidGtfs(f"{table}: line longer than {MAX_LINE_BYTES} bytes")
    if rest:
        yield from _decode(rest, table, is_first)


def _decode(lines: bytes, table: str, is_first: bool) -> Iterator[str]:
    try:
        return iter(lines.decode("utf-8-sig" if is_first else "utf-8").replace("\r", "").split("\n"))
    except UnicodeDecodeError:
        raise InvalidGtfs(f"{table}: not UTF-8") from None
