"""The command ``govi-stats``: reads statistics logs, rotated and compressed ones too, and tells what they say.

The text is for 80 columns. The keys of ``--json`` are those of ``as_json``; ``--html`` writes a page of plots.
"""

import argparse
import gzip
import json
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, BinaryIO, TextIO

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.html_report import NoPage, write_page
from govi_server.statistics.summary import (
    CACHE_RESULTS,
    ENDS,
    MOMENT_FORMATS,
    PHASES,
    QUANTILES,
    STATUS_CLASSES,
    Group,
    LogSummary,
    QuantileSketch,
    Width,
    lines,
    milliseconds,
    read_moment,
    share,
    statuses,
)

CHUNK = 1 << 20
"""Bytes that are read at once."""
MOST_HOURS_SHOWN = 48
"""Periods of the text: when there are more hours, it has days."""
STOPS_SHOWN = 10
STOPS_IN_JSON = 100
_NAME_WIDTH = 22


class Progress:
    """Draws how far reading is, on a terminal, once it has taken a second.

    total: bytes that there are to read, if that is known; seconds: a clock.
    """

    def __init__(self, terminal: TextIO, total: int | None, seconds: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._total = total
        self._seconds = seconds
        self._began = seconds()
        self._next = self._began + 1 if terminal.isatty() else float("inf")
        self._drawn = False

    def at(self, done: int) -> None:
        """Say how many bytes are read."""
        now = self._seconds()
        if now >= self._next:
            self._next = now + 0.2
            self._drawn = True
            print("\r" + self._bar(done, now - self._began), end="\x1b[K", file=self._terminal, flush=True)

    def clear(self) -> None:
        """Take the bar away, so that something else can be written."""
        if self._drawn:
            print("\r", end="\x1b[K", file=self._terminal, flush=True)
            self._drawn = False

    def _bar(self, done: int, took: float) -> str:
        if not self._total:
            return f"{done / 1e6:,.0f} MB read"
        part = min(1.0, done / self._total)  # a log may grow while it is read
        left = f", {took / part - took:,.0f} s left" if part else ""
        return f"[{'#' * round(part * 30):30}] {part:4.0%} of {self._total / 1e6:,.0f} MB{left}"


def chunks(file: BinaryIO, at: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file that may be gzip, which is told by its first bytes. at: is told how much of it is read.

    Raises OSError, EOFError or zlib.error.
    """
    head = file.read(2)
    text: Any = _Rewound(head, file)
    source = gzip.GzipFile(fileobj=text) if head == b"\x1f\x8b" else text
    while chunk := source.read1(CHUNK):
        at(text.position)
        yield chunk


class _Rewound:
    """A file whose first bytes are read already, and that need not be able to seek; counts what is read."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        data = head or self._file.read(size)
        self.position += len(data)
        return data

    read1 = read


def read_files(names: Sequence[str], figures: LogSummary, complain: Callable[[str], None], terminal: TextIO) -> bool:
    """Count the lines of files; - is stdin. Complains of what cannot be read, and tells whether all could be."""
    progress = Progress(terminal, _size(names))
    done = 0
    is_whole = True
    for name in names:
        reached = 0

        def at(position: int, before: int = done) -> None:
            nonlocal reached
            reached = position
            progress.at(before + position)

        try:
            with ExitStack() as stack:
                file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
                for line in lines(chunks(file, at)):
                    figures.read(line)
        except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: a name with a NUL in it
            progress.clear()
            reason = "its gzip ends too early" if isinstance(error, EOFError) else getattr(error, "strerror", None)
            complain(f"cannot read {name}: {reason or error}")
            is_whole = False
        done += reached
    progress.clear()
    return is_whole


def _size(names: Sequence[str]) -> int | None:
    """Add up the bytes of files; None if that cannot be told."""
    total = 0
    for name in names:
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            if name == "-":
                return None
            continue  # is complained of when its turn comes
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
    return total


def as_json(figures: LogSummary) -> dict[str, Any]:
    """Make the object of ``--json``. Times are in milliseconds; null is what there is not.

    ========================  ==================================================================================
    key                       value
    ========================  ==================================================================================
    ``from``, ``to``          the earliest and the latest line that counts, ISO in Dutch time
    ``lines``                 ``counted``, ``outside`` (before --since, after --until), ``bad``
    ``connections``           how many were closed
    ``ends``                  lines by end: ``client``, ``server``, ``timeout``, ``error``, and ``open``, which are
                              reports of connections that went on, and no connections of their own
    ``requests``, ``failed``  how many; failed are those answered with 5xx or 406
    ``bytes``                 of all bodies sent
    ``memory_ratio``          hit and stale, as a fraction of what the cache was asked
    ``answers``               times of all answers: ``count``, ``p50``, ``p90``, ``p99``, ``max``
    ``phases``                by phase, times likewise
    ``modules``               by module: ``requests``, ``failed``, and ``answers`` likewise
    ``elsewhere``             the same of requests to no module
    ``caches``, ``statuses``  the same by cache result, and by status; status ``none`` had no answer
    ``width``                 of the periods: ``hour``, ``day``, ``month`` or ``year``
    ``periods``               a list in order: ``begin``, ``requests``, ``failed``, ``memory_ratio``, ``answers``,
                              ``phases``, and ``statuses``, requests by ``2xx`` ... ``5xx``, ``other``, ``none``
    ``slowest``               at most 100 stops, the slowest by ``mean`` first, then those with fewer than 5
                              ``timed``: ``stop``, ``requests``, ``failed``; ``timed``,
                              answers that did not come from memory, and their ``mean`` and ``max``
    ``stops``                 ``distinct``: how many have figures of their own; ``others``: requests about others
    ========================  ==================================================================================

    An answer's time is that of all phases but ``receive``. Quantiles are within 1 % of the true ones.
    """
    whole = figures.whole
    group = whole.whole
    return {
        "from": _iso(figures.first),
        "to": _iso(figures.last),
        "lines": {"counted": figures.lines, "outside": figures.outside, "bad": figures.bad},
        "connections": figures.connections,
        "ends": {end: figures.ends[end] for end in ENDS},
        "requests": group.requests,
        "failed": group.failed,
        "bytes": figures.bytes,
        "memory_ratio": whole.memory_ratio,
        "answers": _times(group.answers),
        "phases": {phase: _times(whole.phases[phase]) for phase in PHASES if phase in whole.phases},
        "modules": {name: _group(each) for name, each in figures.modules.items()},
        "elsewhere": _group(figures.elsewhere),
        "caches": {cache: _group(whole.caches[cache]) for cache in CACHE_RESULTS if cache in whole.caches},
        "statuses": {status: _group(each) for status, each in statuses(figures)},
        "width": _width(figures),
        "periods": [
            {
                "begin": begin.isoformat(),
                "requests": period.whole.requests,
                "failed": period.whole.failed,
                "memory_ratio": period.memory_ratio,
                "answers": _times(period.whole.answers),
                "phases": {phase: _times(period.phases[phase]) for phase in PHASES if phase in period.phases},
                "statuses": {each: period.classes[each] for each in STATUS_CLASSES if each in period.classes},
            }
            for begin, period in figures.periods("hour")
        ],
        "slowest": [
            {
                "stop": code,
                "requests": stop.requests,
                "failed": stop.failed,
                "timed": stop.timed,
                "mean": round(stop.mean, 3),
                "max": stop.longest / 1000,
            }
            for code, stop in figures.slowest(STOPS_IN_JSON)
        ],
        "stops": {"distinct": len(figures.stops), "others": figures.other_stops.requests},
    }


def _width(figures: LogSummary) -> Width:
    """Tell how long periods are; minutes are for the page."""
    return "hour" if figures.width == "minute" else figures.width


def _iso(moment: float | None) -> str | None:
    return None if moment is None else _local(moment).isoformat(timespec="milliseconds")


def _local(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, LOCAL_ZONE)


def _times(times: QuantileSketch) -> dict[str, Any]:
    quantiles = {name: _round(times.quantile(fraction)) for name, fraction in QUANTILES.items()}
    return {"count": times.count, **quantiles, "max": _round(times.longest if times.count else None)}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _group(group: Group) -> dict[str, Any]:
    return {"requests": group.requests, "failed": group.failed, "answers": _times(group.answers)}


def times_cells(times: QuantileSketch) -> list[str]:
    """Write the columns p50, p90, p99 and max."""
    quantiles = [milliseconds(times.quantile(fraction)) for fraction in QUANTILES.values()]
    return [*quantiles, milliseconds(times.longest if times.count else None)]


TIMES_HEAD = [*QUANTILES, "max"]


def group_cells(group: Group) -> list[str]:
    """Write the columns requests, failed, p50, p90, p99 and max."""
    return [f"{group.requests:,}", f"{group.failed:,}", *times_cells(group.answers)]


GROUP_HEAD = ["requests", "failed", *TIMES_HEAD]


def as_text(figures: LogSummary) -> str:
    """Write the report, in ASCII and 80 columns."""
    whole = figures.whole
    group = whole.whole
    parts = [_totals(figures)]
    if group.requests:
        phases = [[phase, f"{whole.phases[phase].count:,}", *times_cells(whole.phases[phase])] for phase in PHASES]
        phases.append(["answer", f"{group.answers.count:,}", *times_cells(group.answers)])
        parts.append(_table("Phases, in ms", ["", "count", *TIMES_HEAD], phases))
        parts.append("answer: all phases but receive, which is the client's. Quantiles are within 1 %.")
        modules = [[name or "/", *group_cells(each)] for name, each in figures.modules.items()]
        if figures.elsewhere.requests:
            modules.append(["(no module)", *group_cells(figures.elsewhere)])
        caches = [[each, *group_cells(whole.caches[each])] for each in CACHE_RESULTS if each in whole.caches]
        by_status = [[status, *group_cells(each)] for status, each in statuses(figures)]
        parts.append(_table("Answers by module, in ms", ["", *GROUP_HEAD], modules))
        parts.append(_table("Answers by cache result, in ms", ["", *GROUP_HEAD], caches))
        parts.append(_table("Answers by status, in ms", ["", *GROUP_HEAD], by_status))
        parts.append(_periods(figures))
        parts.append(_stops(figures))
    return "\n\n".join(parts) + "\n"


def _totals(figures: LogSummary) -> str:
    whole = figures.whole
    group = whole.whole
    ends = ", ".join(f"{end} {figures.ends[end]:,}" for end in ENDS if end != "open" and figures.ends[end])
    rows = []
    if figures.first is not None and figures.last is not None:
        rows.append(
            ("Period", f"{_local(figures.first):%Y-%m-%d %H:%M:%S} to {_local(figures.last):%Y-%m-%d %H:%M:%S %Z}")
        )
    rows.append(("Connections", f"{figures.connections:,} closed" + (f", ended by: {ends}" if ends else "")))
    if figures.ends["open"]:
        rows.append(("", f"and {figures.ends['open']:,} reports of connections that went on"))
    rows.append(("Requests", f"{group.requests:,}, {figures.bytes / 1e6:,.1f} MB of answers"))
    if group.requests:
        ratio = whole.memory_ratio
        asked = sum(each.requests for cache, each in whole.caches.items() if cache != "none")
        held = round(ratio * asked) if ratio is not None else 0
        rows.append(("From memory", f"{share(held, asked)} of {asked:,} questions about boards"))
        failed = f"{group.failed:,} ({share(group.failed, group.requests)}), by 5xx or 406"
        rows.append(("Failed", failed if group.failed else "none"))
    rows.append(("Bad lines", f"{figures.bad:,} of {figures.bad + figures.lines + figures.outside:,}"))
    if figures.outside:
        rows.append(("Passed over", f"{figures.outside:,} lines of other times"))
    return "\n".join(f"{name:13}{text}" for name, text in rows)


def _periods(figures: LogSummary) -> str:
    periods, width = figures.periods("hour"), _width(figures)
    if len(periods) > MOST_HOURS_SHOWN and width == "hour":
        width = "day"
        periods = figures.periods(width)
    head = ["", "requests", "memory", "failed", *TIMES_HEAD[1:]]
    rows = []
    for begin, period in periods:
        group, ratio = period.whole, period.memory_ratio
        memory = "-" if ratio is None else f"{ratio:.1%}"
        numbers = [f"{group.requests:,}", memory, f"{group.failed:,}"]
        rows.append([begin.strftime(MOMENT_FORMATS[width]), *numbers, *times_cells(group.answers)[1:]])
    table = _table(f"Answers by {width}, Dutch time, in ms", head, rows)
    return table if width == _width(figures) else table + "\nBy hour: in --json, or with --since and --until."


def _stops(figures: LogSummary) -> str:
    slowest = figures.slowest(STOPS_SHOWN)
    if not slowest:
        return "Slowest stops: none, all boards came from memory."
    rows = [
        [
            code,
            f"{stop.requests:,}",
            f"{stop.failed:,}",
            f"{stop.timed:,}",
            milliseconds(stop.mean),
            milliseconds(stop.longest / 1000),
        ]
        for code, stop in slowest
    ]
    head = ["", "requests", "failed", "not mem.", "mean", "max"]
    table = _table("Slowest stops, by the mean of the answers not from memory, in ms", head, rows)
    if figures.other_stops.requests:
        others = f"{figures.other_stops.requests:,} requests about stops beyond the first {len(figures.stops):,}"
        table += f"\n{others} are counted together, and not here."
    return table


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    width = max(_NAME_WIDTH, *(len(plain(row[0])) for row in rows)) if rows else _NAME_WIDTH
    text = [title, " " * width + "".join(f"{name:>9}" for name in head[1:])]
    for name, *cells in rows:
        text.append(f"{plain(name):{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(line.rstrip() for line in text)


def plain(name: str) -> str:
    """Make a stranger's text safe for a terminal, and short."""
    text = "".join(character if " " <= character <= "~" else "?" for character in name)
    return text if len(text) <= _NAME_WIDTH else text[: _NAME_WIDTH - 3] + "..."


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="govi-stats",
        description="Tell what statistics logs of govi-cache say.",
        epilog="MOMENT: 2026-11-22, 2026-11-22T15:30 (Dutch time, or with an offset), or ago: 90s, 30m, 2h, 3d, 1w.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log, rotated and gzipped ones too; - is stdin")
    parser.add_argument("--since", metavar="MOMENT", help="only lines that were written from then on")
    parser.add_argument("--until", metavar="MOMENT", help="only lines that were written before then")
    parser.add_argument("--json", action="store_true", help="write a JSON object in place of the text")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots as well")
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None, now: datetime) -> int:
    """Do what the command line says. Returns the exit status: 1 for what cannot be read or written, 2 for misuse."""
    options = _parse(arguments)
    limits: dict[str, datetime | None] = {"since": None, "until": None}
    for name in limits:
        text = getattr(options, name)
        if text is not None:
            try:
                limits[name] = read_moment(text, now)
            except ValueError as error:
                _complain(f"--{name}: {error}")
                return 2
    figures = LogSummary(**limits)
    is_whole = read_files(options.files, figures, _complain, sys.stderr)
    if not is_whole and not figures.lines + figures.bad + figures.outside:
        return 1  # nothing could be read, as was said
    if not figures.lines:
        _complain(f"no line matched: {figures.bad:,} bad, {figures.outside:,} of other times")
    print(
        json.dumps(as_json(figures), indent=2) if options.json else as_text(figures), end="\n" if options.json else ""
    )
    if options.html:
        try:
            write_page(options.html, figures, now)
        except NoPage as error:
            _complain(str(error))
            is_whole = False
    return 0 if is_whole else 1


def _complain(text: str) -> None:
    print(f"govi-stats: {text}", file=sys.stderr)


def main() -> None:
    """Run the command and end the process."""
    try:
        status = run(None, datetime.now(UTC))
        sys.stdout.flush()
    except BrokenPipeError:  # of | head; what is left in the buffer must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        print("\r", end="\x1b[K" if sys.stderr.isatty() else "", file=sys.stderr)
        status = 130
    sys.exit(status)
