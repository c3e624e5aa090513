"""The departure board as a page, and the fragment of it that changes.

The page is a template. The fragment, which every event carries, is formatted in Python: a Jinja2 template took 310 us
for 20 departures instead of 203 us (CPython 3.11, Jinja2 3.1.6).
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache, lru_cache
from html import escape
from math import ceil, floor
from operator import attrgetter
from urllib.parse import quote, urlencode

from markupsafe import Markup
from markupsafe import escape as markup_escape

from govi_server.departures.display import (
    COUNTDOWN_SECONDS,
    DepartureDisplay,
    DisplayRow,
    StopDisplay,
    whole_minutes,
)
from govi_server.departures.fragments import make_part, pieces
from govi_server.departures.journey import JourneyDisplay
from govi_server.departures.modes import MODES, Mode
from govi_server.departures.times import MINUTE, local_timestamp
from govi_server.pages.assets import TEMPLATES, VERSION
from govi_server.pages.links import language_links
from govi_server.pages.texts import TEXTS, clock, direction_words, left_words, row_words, stop_name, stop_words
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.text import escape_unprintable

REFRESH_SECONDS = 10
"""Seconds after which a browser without scripts reloads the page."""

_PAGE = TEMPLATES.get_template("board.html")
_GAP = "<!-- gap -->"
"""Stands for what differs between pages; escaped text cannot contain it."""
_escape = lru_cache(maxsize=4096)(escape)  # of the remaining times, which many departures share
_platform = attrgetter("platform")
_LEFT = "<>"
"""Stands for the remaining time in a row."""
_CLOCK = slice(11, 16)  # hours and minutes of a timestamp: formatting both is slower
_DUTCH = ' lang="nl"'  # the language of the sources' texts, for screen readers and hyphenation

# Dimensions of a badge, whose text is 22 units high.
_BADGE_HEIGHT, _BADGE_PADDING, _CHARACTER_WIDTH, _MIN_BADGE_WIDTH = 32, 8, 15, 46
_ICONS: Mapping[Mode, str] = {
    "bus": "M4 3h16v15h-2v3h-3v-3H9v3H6v-3H4zM6 6v1 6h12V6zM6 14v2h3v-2zM15 14v2h3v-2z",
    "tram": "M11 5L8 2h8l-3 3h5v13l2 3h-3l-1-2H8l-1 2H4l2-3V5zM8 8v5h8V8zM8 14v2h3v-2zM13 14v2h3v-2z",
    "metro": "M12 2a10 10 0 1 1 0 20 10 10 0 0 1 0-20zM7 17h2v-6l3 4 3-4v6h2V7h-2l-3 4-3-4H7z",
    "ferry": ("M11 2h2v3h5v6l3 1-3 6q-3 2-6 0-3 2-6 0l-3-6 3-1V5h5zM8 7v3l4-1 4 1V7zM3 20q3 2 6 0t6 0 6 0v2H3z"),
    "rail": "M6 2h12v15l2 4h-3l-1-2H8l-1 2H4l2-4zM8 5v6h8V5zM8 13v2h3v-2zM13 13v2h3v-2z",
}
"""Paths of the icons, in which the windows are holes by the rule evenodd."""
_MAX_UNFITTED = 3
"""Characters of a line's number that always fit into its badge; longer numbers are condensed."""


def page(
    display: DepartureDisplay,
    lang: str,
    now: float,
    query: Mapping[str, str],
    filters: tuple[str, ...] = (),
    is_demo: bool = False,
) -> Iterator[str]:
    """Write the page, in pieces.

    query: the request's valid parameters, which the page's links pass on. filters: names of the parameters that the
    page offers. is_demo: whether the page says that its departures are fictional.
    """
    codes = ",".join([stop.code for stop in display.stops])
    names = ", ".join([stop_name(stop, lang) for stop in display.stops])
    begin, title, head, body, links, end = _frame(
        lang, len(display.stops) == 1, tuple(query.items()), filters, is_demo or display.is_fictional
    )
    names = _escaped(names)
    yield f"{begin}{names}{title}{names}{head}{_escaped(codes)}{body}"
    yield from fragment(display, lang, now)
    yield f"{links}{_similar(display, lang, query)}{end}"


def _similar(display: DepartureDisplay, lang: str, query: Mapping[str, str]) -> str:
    """Return links to the boards of stops that may be meant instead of unknown ones; "" without any."""
    parameters = escape(f"?{urlencode(dict(query))}" if query else "")
    links = [
        f'<a href="/board/{escape(code)}{parameters}"{_DUTCH}>{_escaped(f"{code} {name}".rstrip())}</a>\n'
        for code, _, name in (text.partition(" ") for stop in display.stops for text in stop.similar)
    ]
    return f'<nav aria-label="{escape(TEXTS[lang]["similar_links"])}">\n{"".join(links)}</nav>\n' if links else ""


@lru_cache(maxsize=256)  # as boards of all stops have few parameters; rendering it takes as long as 20 departures
def _frame(
    lang: str, is_single: bool, query: tuple[tuple[str, str], ...], filters: tuple[str, ...], is_demo: bool
) -> list[str]:
    """Return what boards with the same parameters share, around the stops' names, their codes and the fragment."""
    return _PAGE.render(
        lang=lang,
        texts=TEXTS[lang],
        is_demo=is_demo,
        title=Markup(escape(TEXTS[lang]["title"])).format(stop=Markup(_GAP)),
        classes=_classes(dict(query), is_single),
        theme=dict(query).get("theme", ""),
        rotate=dict(query).get("rotate", ""),
        refresh=REFRESH_SECONDS,
        events=Markup(f"/events/{_GAP}?{escape(urlencode({**dict(query), 'lang': lang}))}"),
        languages=language_links(dict(query)),
        values=dict(query),
        filters=filters,
        modes=MODES,
        fragment=Markup(_GAP),
        similar=Markup(_GAP),
    ).split(_GAP)


def _classes(query: Mapping[str, str], is_single: bool) -> str:
    """Return the classes of the page's body: its view, the number of stops and the size of the type."""
    names = (query.get("view", ""), "single" if is_single else "several", query.get("size", ""))
    return " ".join(filter(None, names))


def _escaped(text: str) -> str:
    """Return a text as a template writes it."""
    return markup_escape(escape_unprintable(text, allowed="\n\t"))


def fragment(display: DepartureDisplay, lang: str, now: float) -> Iterator[str]:
    """Write the content of the page's main element, in pieces: the time, the data's age and the stops.

    now: epoch seconds. The page's script replaces the element's content with it, and counts down from this moment, in
    whole seconds. So the content is that of the next whole second: the script then finds the texts as it writes them.
    """
    now = ceil(now)
    timestamp = local_timestamp(now)
    # Pages that were opened before the data was known to be fictional reload, and then say so.
    version = f"{VERSION}-fictional" if display.is_fictional else VERSION
    yield (
        f'<div class="now"><time class="clock" datetime="{timestamp}" data-now="{now}" '
        f'data-offset="{offset_seconds(now):.0f}" data-version="{version}">{timestamp[_CLOCK]}</time>'
        f"{_age(display, lang, now)}</div>\n"
    )
    with_messages = [stop for stop in display.stops if stop.messages]
    for stop in display.stops:
        yield from _stop(stop, display.horizon, lang, now, with_messages == [stop])


def offset_seconds(now: float) -> float:
    """Return the difference of local time to UTC at a moment (epoch seconds), in seconds."""
    offset = datetime.fromtimestamp(now, LOCAL_ZONE).utcoffset()
    assert offset is not None  # the time has a zone
    return offset.total_seconds()


def _age(display: DepartureDisplay, lang: str, now: float) -> str:
    """Render the time of the oldest live data; "" without any."""
    ages = [stop.age for stop in display.stops if stop.state in ("live", "last_known")]
    if not ages:
        return ""
    age = ceil(max(ages))
    text = TEXTS[lang]["updated"].format(time=clock(now - age))
    return f'<span class="age" data-age="{age}">{escape(text)}</span>'


def _stop(stop: StopDisplay, horizon: float, lang: str, now: float, is_only_with_messages: bool) -> Iterator[str]:
    """Render a stop. Only it has messages: on a wall, they have the whole width."""
    town = f'<p class="town">{escape(stop.town)}</p>' if stop.town else ""
    dutch = _DUTCH if stop.name else ""
    classes = "stop informing" if is_only_with_messages else "stop"
    parts = [f'<section class="{classes}"><header{dutch}><h1>{escape(stop_name(stop, lang))}</h1>{town}</header>']
    if stop.messages:
        items = "".join(f"<li data-news{_DUTCH}>{escape(message)}</li>" for message in stop.messages)
        parts.append(f'<ul class="messages" aria-label="{escape(TEXTS[lang]["messages"])}">{items}</ul>')
    if notice := stop_words(stop, horizon, lang):
        parts.append(f'<p class="notice {stop.state}" data-news>{escape(notice)}</p>')
    yield "\n".join(parts)
    if stop.rows:
        yield "\n"
        yield from _table(stop, lang, now)
    yield "</section>\n"


def _table(stop: StopDisplay, lang: str, now: float) -> Iterator[str]:
    with_platform = any(map(_platform, stop.rows))
    name = escape(stop_name(stop, lang))
    yield f'<table aria-label="{name}">\n<thead><tr>{_head(with_platform, lang)}</tr></thead>\n<tbody>\n'
    yield from pieces(_rows(stop, with_platform, lang, now), "")
    yield "</tbody></table>"


@cache  # of two forms in each language
def _head(with_platform: bool, lang: str) -> str:
    names = ["line", "destination", *(["platform"] if with_platform else []), "time"]
    return "".join(f'<th scope="col" class="{name}">{escape(TEXTS[lang][name])}</th>' for name in names)


def _rows(stop: StopDisplay, with_platform: bool, lang: str, now: float) -> Iterator[tuple[str, bool]]:
    """Write the rows, which are stored without the remaining times; yield each, and whether it was stored."""
    forms = {shows: f"html {lang} {with_platform} {shows}" for shows in (False, True)}
    for row in stop.rows:
        form = forms[row.shows_direction]
        parts, was_stored = make_part(row.fragments, form, row.state, _row_parts, stop, row, with_platform, lang)
        if len(parts) == 1:
            yield parts[0], was_stored
        else:
            begin, end, time = parts
            left = stop.seconds_left(row, now)
            words = time  # unless displays_minutes(whole_minutes(left)), without two calls for each row
            if left < COUNTDOWN_SECONDS:
                words = _escape(left_words(row, whole_minutes(left), lang))
            yield f'{begin}{floor(now + left)}">{words}{end}', was_stored


def _row_parts(stop: StopDisplay, row: DisplayRow, with_platform: bool, lang: str) -> tuple[str, ...]:
    """Render a row: all of it, or what precedes and follows its minutes, and the time that may be in their place."""
    parts = _row(stop, row, with_platform, lang).split(_LEFT)
    return tuple(parts) if len(parts) == 1 else (*parts, _escape(clock(row.expected)))


def _row(stop: StopDisplay, row: DisplayRow, with_platform: bool, lang: str) -> str:
    """Render a row, in which _LEFT stands for what changes with time: the remaining time."""
    # Screen readers announce new cancellations, but not the countdown.
    news = " data-news" if row.state == "cancelled" else ""
    note = f'<span class="note">{escape(row.note)}</span>' if row.note else ""
    name, code = escape(row.destination), row.code or stop.code
    if row.journey:
        name = f'<a href="/trip/{escape(quote(row.journey, safe=""))}?at={escape(code)}&amp;lang={lang}">{name}</a>'
    destination = f'<span class="name">{name}</span>'
    if row.shows_direction:
        destination += f'<span class="note" lang="{lang}">{escape(direction_words(row, lang))}</span>'
    platform = f'<td class="platform">{escape(row.platform or "")}</td>' if with_platform else ""
    return (
        f'<tr class="{row.state}"{news}><th scope="row" class="line">{_route(row, lang)}</th>'
        f'<td class="destination"{_DUTCH}>{destination}{note}</td>{platform}'
        f'<td class="time">{_time(row, lang)}</td></tr>\n'
    )


def _time(row: DisplayRow, lang: str) -> str:
    """Render the content of a time cell: the departure time, the planned one if it differs, and the state."""
    timestamp = local_timestamp(row.planned)
    planned = f'<time datetime="{timestamp}">{timestamp[_CLOCK]}</time>'
    if row.state == "cancelled":
        when = f"<s>{planned}</s>"
    elif not row.counts_down:
        when = f'<span class="left">{planned}</span>'
    else:
        was = f'<s><span class="unseen">{escape(TEXTS[lang]["was"])} </span>{planned}</s> ' if row.moved else ""
        minute = row.expected - row.expected % MINUTE  # programs read the displayed minute
        when = f'{was}<time class="left" datetime="{local_timestamp(minute)}" data-at="{_LEFT}</time>'
    return f'<span class="when">{when}</span> <span class="state">{escape(row_words(row, lang))}</span>'


def route(line: DisplayRow | JourneyDisplay, lang: str) -> Markup:
    """Return the mode and the number of a line as HTML."""
    return Markup(_route(line, lang))


def _route(line: DisplayRow | JourneyDisplay, lang: str) -> str:
    return f"{_mode(line.mode, lang)}{_badge(line)}"


def _mode(mode: Mode | None, lang: str) -> str:
    """Render a mode of transport, as text for screen readers and as an icon; "" if it is unknown."""
    if mode is None:
        return ""
    return (
        f'<span class="unseen">{escape(TEXTS[lang][f"mode_{mode}"])} </span>'
        f'<svg class="mode" viewBox="0 0 24 24" aria-hidden="true"><path d="{_ICONS[mode]}"/></svg>'
    )


def _badge(row: DisplayRow | JourneyDisplay) -> str:
    """Render a line's number, as text for screen readers and as an image in the line's colours.

    The page's policy forbids style attributes, hence the image; not all screen readers read text in images.
    """
    width = max(_MIN_BADGE_WIDTH, round(len(row.line) * _CHARACTER_WIDTH + 2 * _BADGE_PADDING))
    background = f' fill="{row.color}"' if row.color else ""
    text = f' fill="{row.text_color}"' if row.text_color else ""
    if len(row.line) > _MAX_UNFITTED:
        text += f' textLength="{width - 2 * _BADGE_PADDING}" lengthAdjust="spacingAndGlyphs"'
    plain = "" if row.color else " plain"
    return (
        f'<span class="unseen">{escape(row.line)}</span>'
        f'<svg class="badge{plain}" viewBox="0 0 {width} {_BADGE_HEIGHT}" aria-hidden="true">'
        f'<rect width="{width}" height="{_BADGE_HEIGHT}" rx="6"{background}/>'
        f'<text x="50%" y="24" text-anchor="middle"{text}>{escape(row.line)}</text></svg>'
    )
