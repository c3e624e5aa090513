"""The departure board as a page, and the part of it that changes."""

from collections.abc import Generator, Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import urlencode

from govi_server.departures.display import DepartureDisplay, DisplayRow, StopDisplay
from govi_server.departures.times import MINUTE, local_timestamp
from govi_server.pages import links as languages
from govi_server.pages.assets import address
from govi_server.pages.texts import TEXTS, clock, left_words, row_words, stop_name, stop_words
from govi_server.runtime.clock import LOCAL_ZONE

REFRESH = 10
"""Seconds after which a browser without scripts loads the page again: as many as are taken off what is left."""

_PAGE = Template(files("govi_server.pages").joinpath("templates", "board.html").read_text("utf-8"))
_DUTCH = ' lang="nl"'  # so that what a source writes is read out, and broken, as what it is
_HEIGHT, _SIDE, _CHARACTER, _LEAST = 32, 8, 15, 46  # of a badge, in units of which its text is 22 high


def page(sign: DepartureDisplay, lang: str, now: float, query: Mapping[str, str]) -> Generator[None, None, str]:
    """Make the whole page of a sign, bit by bit. query: the parameters that it was asked for with, all sound."""
    texts = TEXTS[lang]
    codes = ",".join(stop.code for stop in sign.stops)
    events = f"/events/{codes}?{urlencode({**query, 'lang': lang})}"
    values = {
        "lang": lang,
        "title": texts["title"].format(stop=", ".join(stop_name(stop, lang) for stop in sign.stops)),
        "view": query.get("view", ""),
        "count": "single" if len(sign.stops) == 1 else "several",
        "refresh": f"{REFRESH}",
        "events": events,
        "now_text": texts["now"],
        "minutes_text": texts["minutes"],
        "offline": texts["offline"],
        "languages_text": texts["languages"],
        "css": address("board.css"),
        "js": address("board.js"),
        "icon": address("icon.svg"),
    }
    return _PAGE.substitute(
        {name: escape(value) for name, value in values.items()},
        languages=languages.links(lang, query),
        fragment=(yield from fragment(sign, lang, now)),
    )


def fragment(sign: DepartureDisplay, lang: str, now: float) -> Generator[None, None, str]:
    """Make what is inside the page's main element, bit by bit: the clock and the signs of the stops, in HTML.

    now: epoch seconds. The script of the page puts it in place of what was there, and counts on from it.
    """
    offset = datetime.fromtimestamp(now, LOCAL_ZONE).utcoffset()
    assert offset is not None  # it has a zone
    parts = [
        f'<time class="clock" datetime="{local_timestamp(now)}" data-now="{now:.0f}" '
        f'data-offset="{offset.total_seconds():.0f}">{clock(now)}</time>\n'
    ]
    for stop in sign.stops:
        parts.append(_stop(stop, sign.horizon, lang, now))
        yield
    return "".join(parts)


def _stop(stop: StopDisplay, horizon: float, lang: str, now: float) -> str:
    town = f'<p class="town">{escape(stop.town)}</p>' if stop.town else ""
    dutch = _DUTCH if stop.name else ""
    parts = [f'<section class="stop"><header{dutch}><h1>{escape(stop_name(stop, lang))}</h1>{town}</header>']
    if stop.messages:
        items = "".join(f"<li data-news{_DUTCH}>{escape(message)}</li>" for message in stop.messages)
        parts.append(f'<ul class="messages" aria-label="{escape(TEXTS[lang]["messages"])}">{items}</ul>')
    if words := stop_words(stop, horizon, lang):
        parts.append(f'<p class="notice {stop.state}" data-news>{escape(words)}</p>')
    if stop.rows:
        parts.append(_table(stop, lang, now))
    return "\n".join(parts) + "</section>\n"


def _table(stop: StopDisplay, lang: str, now: float) -> str:
    texts = TEXTS[lang]
    with_platform = any(row.platform for row in stop.rows)
    names = ["line", "destination", *(["platform"] if with_platform else []), "time"]
    head = "".join(f'<th scope="col" class="{name}">{escape(texts[name])}</th>' for name in names)
    rows = "".join(_row(stop, row, with_platform, lang, now) for row in stop.rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>"


def _row(stop: StopDisplay, row: DisplayRow, with_platform: bool, lang: str, now: float) -> str:
    # What matters to who cannot see it is said when it comes; that minutes go by is not.
    gone = " data-news" if row.state == "cancelled" else ""
    note = f'<span class="note">{escape(row.note)}</span>' if row.note else ""
    destination = f'<span class="name">{escape(row.destination)}</span>'
    platform = f'<td class="platform">{escape(row.platform or "")}</td>' if with_platform else ""
    return (
        f'<tr class="{row.state}"{gone}><th scope="row" class="line">{_badge(row)}</th>'
        f'<td class="destination"{_DUTCH}>{destination}{note}</td>{platform}'
        f'<td class="time">{_time(stop, row, lang, now)}</td></tr>\n'
    )


def _time(stop: StopDisplay, row: DisplayRow, lang: str, now: float) -> str:
    """Make the cell of the time: when it is, what it was to be, and what is known of it."""
    planned = f'<time datetime="{local_timestamp(row.planned)}">{clock(row.planned)}</time>'
    if row.state == "cancelled":
        when = f"<s>{planned}</s>"
    elif stop.minutes(row, now) is None:
        when = f'<span class="left">{planned}</span>'
    else:
        was = f'<s><span class="unseen">{escape(TEXTS[lang]["was"])} </span>{planned}</s> ' if row.moved else ""
        ends = row.expected - row.expected % MINUTE  # what is shown and what programs read is the same minute
        left = escape(left_words(stop, row, now, lang))
        at = now + stop.seconds_left(row, now)
        when = f'{was}<time class="left" datetime="{local_timestamp(ends)}" data-at="{at:.0f}">{left}</time>'
    return f'<span class="when">{when}</span> <span class="state">{escape(row_words(row, lang))}</span>'


def _badge(row: DisplayRow) -> str:
    """Write a line's number, and draw it on its colour for who sees.

    An image, for its attributes are no style, which the page's policy allows to its own files only. What is written
    in an image is not read out by all that read a page.
    """
    width = max(_LEAST, round(len(row.line) * _CHARACTER + 2 * _SIDE))
    ground = f' fill="{row.color}"' if row.color else ""
    text = f' fill="{row.text_color}"' if row.text_color else ""
    if len(row.line) > 3:  # wide letters might run over the ground
        text += f' textLength="{width - 2 * _SIDE}" lengthAdjust="spacingAndGlyphs"'
    plain = "" if row.color else " plain"
    return (
        f'<span class="unseen">{escape(row.line)}</span>'
        f'<svg class="badge{plain}" viewBox="0 0 {width} {_HEIGHT}" focusable="false" aria-hidden="true">'
        f'<rect width="{width}" height="{_HEIGHT}" rx="6"{ground}/>'
        f'<text x="50%" y="24" text-anchor="middle"{text}>{escape(row.line)}</text></svg>'
    )
