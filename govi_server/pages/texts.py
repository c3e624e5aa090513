"""The texts of the pages in all languages, and the wording of times and states. The texts are in texts.toml."""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from re import sub

from govi_server.departures.display import DisplayRow, RowState, StopDisplay, StopState, displays_minutes
from govi_server.departures.times import MINUTE
from govi_server.runtime.clock import LOCAL_ZONE

TEXTS: Mapping[str, Mapping[str, str]] = tomllib.loads(
    files("govi_server.pages").joinpath("texts.toml").read_text("utf-8")
)
"""Texts by key, by language."""

SPACED_TEXTS: Mapping[str, Mapping[str, str]] = {
    lang: {key: sub(" (?=[:;?!])", "\N{NO-BREAK SPACE}", text) for key, text in texts.items()}
    for lang, texts in TEXTS.items()
}
"""The same, without line breaks before signs that French separates with a space."""

LANGUAGES = tuple(TEXTS)
"""Two letters each; the first is the default."""

# The keys of states that stops can also have; the key of any other state is its name.
_ROW_KEYS: dict[RowState, str] = {
    "planned": "row_planned",
    "unknown": "row_unknown",
    "last_known": "row_last_known",
}
_NOTICES: tuple[StopState, ...] = ("planned", "last_known", "none", "unknown", "down")


def clock(moment: float) -> str:
    """Format a moment (epoch seconds) as a wall clock in the Netherlands: 23:45."""
    return _clock(moment // MINUTE)


@lru_cache(maxsize=4096)  # the departures of a day share them
def _clock(minute: float) -> str:
    local = datetime.fromtimestamp(minute * MINUTE, LOCAL_ZONE)
    return f"{local.hour:02}:{local.minute:02}"


def stop_name(stop: StopDisplay, lang: str) -> str:
    """Return a stop's name, or a text with its code if the name is unknown."""
    return stop.name or TEXTS[lang]["stop"].format(code=stop.code)


def direction_words(row: DisplayRow, lang: str) -> str:
    """Return the text of a departure's direction."""
    return TEXTS[lang]["direction"].format(n=row.direction)


def row_words(row: DisplayRow, lang: str) -> str:
    """Return the text of a departure's state."""
    if row.state in ("late", "early"):
        return TEXTS[lang][row.state].format(n=abs(row.delay))
    return TEXTS[lang][_ROW_KEYS.get(row.state, row.state)]


def stop_words(stop: StopDisplay, horizon: float, lang: str) -> str:
    """Return the notice of a stop's state, "" if the stop is live. horizon: seconds ahead that the board covers."""
    if stop.state not in _NOTICES:
        return ""
    time = "" if stop.as_of is None else clock(stop.as_of)
    key = "down_yet" if stop.awaits_data else stop.state
    words = TEXTS[lang][key].format(code=stop.code, n=round(horizon / MINUTE), time=time)
    if stop.state == "none" and stop.as_of is not None:
        words += " " + TEXTS[lang]["last_known"].format(time=time)
    if stop.similar:
        words += " " + TEXTS[lang]["similar"].format(stops="; ".join(stop.similar))
    return words


def left_words(row: DisplayRow, minutes: int | None, lang: str) -> str:
    """Return the time of a departure: now, the remaining minutes, or the time of day. minutes: of StopDisplay."""
    if minutes is None:
        return clock(row.planned)
    if not displays_minutes(minutes):
        return clock(row.expected)
    return TEXTS[lang]["minutes"].format(n=minutes) if minutes else TEXTS[lang]["now"]
