"""The page of a journey: its stops with their times, and where it is."""

from collections.abc import Iterator, Mapping
from math import ceil

from govi_server.departures.display import DisplayRow
from govi_server.departures.journey import Call, JourneyDisplay
from govi_server.departures.times import local_timestamp
from govi_server.pages.assets import TEMPLATES, VERSION
from govi_server.pages.board_page import REFRESH_SECONDS, offset_seconds, route
from govi_server.pages.links import language_links
from govi_server.pages.texts import TEXTS, clock, row_words
from govi_server.runtime.templates import render

_PAGE = TEMPLATES.get_template("journey.html")


def page(
    journey: JourneyDisplay | None, lang: str, now: float, query: Mapping[str, str], is_demo: bool = False
) -> Iterator[str]:
    """Render the page of a journey, None for one that is unknown, in pieces.

    now: epoch seconds. query: the request's valid parameters; at: the TimingPointCode that is marked.
    """
    now = ceil(now)  # as in board_page.fragment()
    age = 0 if journey is None else ceil(journey.age)
    texts = TEXTS[lang]
    progress, number = ("unknown", None) if journey is None else journey.progress(now)
    words = ""
    if progress != "unknown":
        stop = "" if journey is None or number is None else _name(journey.calls[number], lang)
        words = texts[f"journey_{progress}"].format(stop=stop)
    return render(
        _PAGE,
        lang=lang,
        texts=texts,
        is_demo=is_demo,
        title=texts["journey_none"] if journey is None else f"{journey.line} {journey.destination}",
        refresh=REFRESH_SECONDS,
        theme=query.get("theme", ""),
        languages=language_links(query),
        journey=journey,
        with_platform=journey is not None and any(call.platform for call in journey.calls),
        route="" if journey is None else route(journey, lang),
        progress=progress,
        progress_words=words,
        calls=[]
        if journey is None
        else [
            {
                "call": call,
                "name": _name(call, lang),
                "planned": clock(call.planned),
                "expected": clock(call.expected),
                "moved": call.state in ("late", "early") and clock(call.planned) != clock(call.expected),
                "words": _words(call, lang),
                "is_here": position == number,
                "is_marked": call.code == query.get("at"),
            }
            for position, call in enumerate(journey.calls)
        ],
        now=now,
        offset=f"{offset_seconds(now):.0f}",
        timestamp=local_timestamp(now),
        clock=clock(now),
        updated=None if journey is None else texts["updated"].format(time=clock(now - age)),
        age=age,
        version=VERSION,
    )


def _name(call: Call, lang: str) -> str:
    return call.name or TEXTS[lang]["stop"].format(code=call.code)


def _words(call: Call, lang: str) -> str:
    if call.state == "passed":
        return TEXTS[lang]["passed"]
    return row_words(DisplayRow("", "", call.planned, call.expected, call.state), lang)
