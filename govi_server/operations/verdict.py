"""The verdict: one sentence about the requests for boards, from the same counts as the chart under it. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from govi_server.departures.times import utc_timestamp
from govi_server.operations.health import MAX_FAILURE_RATIO, WINDOW_MINUTES, HealthStatus
from govi_server.operations.history import BoardResult, Minute
from govi_server.statistics.formatting import share

FAILURES: tuple[BoardResult, ...] = ("timeout", "failed")

MAX_STOPS = 3
"""Stops that a sentence names."""


_STARTS = {"UP": "All sources work", "DOWN": "Boards in memory are served"}


class Verdict(NamedTuple):
    """A sentence. has_failures: whether more requests failed than is to be expected, whatever the status is."""

    sentence: str
    has_failures: bool


def verdict(status: HealthStatus, minutes: Iterable[Minute], now: float) -> Verdict:
    """Return the verdict of the last minutes, or else of the hour. minutes: those of the last hour, in order."""
    hour = list(minutes)
    recent = [minute for minute in hour if now - minute.begins < WINDOW_MINUTES * 60]
    failed, total = _counts(recent)
    if failed:
        return Verdict(_failing(status, recent, failed, total), _exceeds_failure_ratio(failed, total))
    start = _STARTS.get(status, "Clients are served")
    sentence = f"No board was requested in the last {WINDOW_MINUTES} minutes."
    if total:
        sentence = f"{start}: all {total:,} board requests of the last {WINDOW_MINUTES} minutes were answered."
        if total == 1:
            sentence = f"{start}: the only board request of the last {WINDOW_MINUTES} minutes was answered."
    failed, total = _counts(hour)
    if _exceeds_failure_ratio(failed, total):
        last = max(minute.begins for minute in hour if _counts([minute])[0])
        sentence += (
            f" Earlier in this hour {failed:,} of {total:,} ({share(failed, total)}) failed, the last at "
            f"{utc_timestamp(last)[11:16]} UTC."
        )
    return Verdict(sentence, False)


def _failing(status: HealthStatus, recent: Sequence[Minute], failed: int, total: int) -> str:
    requests = "board request" if total == 1 else "board requests"
    counts = f"{failed:,} of {total:,} {requests} ({share(failed, total)})"
    sentence = f"{counts} failed in the last {WINDOW_MINUTES} minutes"
    stops = {stop for minute in recent for requests in minute.modules.values() for stop in requests.stops["failed"]}
    if stops:
        named = ", ".join(sorted(stops)[:MAX_STOPS])
        sentence += f", for {'stop' if len(stops) == 1 else 'stops'} {named}"
        if len(stops) > MAX_STOPS:
            sentence += f" and {len(stops) - MAX_STOPS:,} more"
    if status == "UP" and _exceeds_failure_ratio(failed, total):
        sentence += ". The sources work: such stops may not exist, or the failures are too few to indicate a fault"
    return f"{sentence}."


def _counts(minutes: Iterable[Minute]) -> tuple[int, int]:
    """Return the failed and all requests for boards, as in the chart."""
    results: Counter[BoardResult] = Counter()
    for minute in minutes:
        results.update(minute.results)
    return sum(results[failure] for failure in FAILURES), results.total()


def _exceeds_failure_ratio(failed: int, total: int) -> bool:
    return failed > total * MAX_FAILURE_RATIO
