"""The page on which people put a display together: a form, its preview, and what to do with the result."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlencode

import segno
from markupsafe import Markup

from govi_server.departures.modes import MODES
from govi_server.departures.place_index import MAX_PLACES, MAX_QUERY_CHARACTERS
from govi_server.pages.assets import TEMPLATES, THEMES
from govi_server.pages.front_page import LinkedStop
from govi_server.pages.links import language_links
from govi_server.pages.texts import LANGUAGES, SPACED_TEXTS, TEXTS
from govi_server.runtime.templates import render

MAX_STOPS = 4
"""Stops of a display."""

MAX_DESTINATIONS = 3
"""Destinations by which a direction is named."""

MAX_LINES = 60
"""Lines to choose from; the busiest stations have about forty."""

SIZES: Mapping[str, tuple[int, int]] = {"phone": (360, 640), "kiosk": (800, 480), "wall": (1280, 720)}
"""Width and height of the preview and of the frame, in pixels, by kind of screen."""

SCREENS = ("kiosk", "wall")
"""Screens that are not scrolled: their boards are walls."""

LED_CHARS, LED_ROWS = 24, 4
"""Of the LED sign in the example: characters of a line, and lines."""

BOARD_PARAMETERS = ("after", "to", "line", "direction", "mode", "limit", "lang", "theme", "view")
"""Parameters of the form that the board has as well, in the order of its address."""

MAX_QR_CHARACTERS = 500
"""Characters of a URL that has a QR code, which takes up to 8 ms. Cameras hardly read a larger one."""

_PAGE = TEMPLATES.get_template("make.html")


@dataclass(frozen=True, slots=True)
class Display:
    """What the page shows: the chosen stops, and those that a search found.

    matches: None without a search. lines: LinePublicNumbers of the chosen stops. directions: where the departures of
    each LineDirection go. can_search: False for a gateway. origin: scheme and host of the server's address. walking:
    the text of each field for a walking time, of which there is one for each chosen stop, or one in all.
    """

    chosen: Sequence[LinkedStop]
    matches: Sequence[LinkedStop] | None
    lines: Sequence[str]
    directions: Mapping[str, Sequence[str]]
    can_search: bool
    origin: str
    walking: Sequence[str]
    filters: Sequence[str]
    """Names of the parameters that boards have."""


def page(display: Display, lang: str, query: Mapping[str, str], lines: Sequence[str]) -> Iterator[str]:
    """Render the page, in pieces.

    query: the form's valid parameters, without stops and lines. lines: those that are chosen.
    """
    size = query.get("size", "phone")
    values = {name: query[name] for name in BOARD_PARAMETERS if query.get(name)}
    values.pop("lang", None)
    if query.get("language"):
        values["lang"] = query["language"]
    if lines:
        values["line"] = ",".join(lines)
    if size in SCREENS:
        values["view"] = "wall"
    ordered = [(name, values[name]) for name in BOARD_PARAMETERS if name in values]
    stops = quote(",".join([stop.id for stop in display.chosen]), safe=",")
    path = f"/board/{stops}?{urlencode(ordered, safe=',')}".removesuffix("?")
    return render(
        _PAGE,
        lang=lang,
        texts=SPACED_TEXTS[lang],
        languages=language_links({}),
        language_names=[(code, TEXTS[code]["name"]) for code in LANGUAGES],
        display=display,
        query=query,
        directions=[(number, ", ".join(_several(display.directions.get(number, ())))) for number in ("1", "2")],
        lines=[(line, line in lines) for line in dict.fromkeys((*lines, *display.lines))],
        walking=_walking_fields(display),
        modes=MODES,
        themes=THEMES,
        sizes=SIZES,
        size=size,
        max_length=MAX_QUERY_CHARACTERS,
        found=None if display.matches is None else len(display.matches),
        max_stops=MAX_PLACES,
        result=_result(display.origin, path, ordered, stops, SIZES[size]) if display.chosen else None,
    )


def _several(names: Sequence[str]) -> list[str]:
    return [*names[:MAX_DESTINATIONS], *(["…"] if len(names) > MAX_DESTINATIONS else [])]


def walking_field(stop: str) -> str:
    """Return the name of the field for the walking time to one of several stops."""
    return f"after {stop}"


def _walking_fields(display: Display) -> list[tuple[str, str, str]]:
    """Return the name of each field for a walking time, the stop that its label names, and its text."""
    if len(display.walking) == 1:
        return [("after", "", display.walking[0])]
    return [
        (walking_field(stop.id), stop.name, text) for stop, text in zip(display.chosen, display.walking, strict=True)
    ]


def _result(
    origin: str, path: str, parameters: Sequence[tuple[str, str]], stops: str, size: tuple[int, int]
) -> dict[str, object]:
    """Return what the page offers for a finished display."""
    width, height = size
    url = f"{origin}{path}"
    others = [(name, value) for name, value in parameters if name not in ("limit", "view", "theme")]
    text = urlencode([("limit", LED_ROWS), ("chars", LED_CHARS), *others], safe=",")
    data = urlencode([("limit", 3), *others], safe=",")
    return {
        "path": path,
        "url": url,
        "qr": Markup(_qr_code(url)),
        "frame": f'<iframe src="{escape(url)}" title="Departures" width="{width}" height="{height}"></iframe>',
        "led": f"curl -H 'Accept: text/plain' '{origin}/board/{stops}?{text}'",
        "home_assistant": _home_assistant(f"{origin}/board/{stops}?{data}"),
        "width": width,
        "height": height,
    }


def _qr_code(text: str) -> str:
    """Return an SVG element that shows a QR code (ISO/IEC 18004), without styles, as the page's policy requires.

    Return "" for a text of more than MAX_QR_CHARACTERS.
    """
    if len(text) > MAX_QR_CHARACTERS:
        return ""
    file = io.BytesIO()
    # Trying all masks, of which readers accept any, takes five times as long.
    segno.make(text, error="m", micro=False, mask=0).save(
        file,
        kind="svg",
        scale=4,
        border=4,
        omitsize=True,
        title=text,
        xmldecl=False,
        svgns=False,
        nl=False,
        dark="#000",
        light="#fff",
    )
    return file.getvalue().decode()


def _home_assistant(url: str) -> str:
    """Return a REST sensor for configuration.yaml; the JSON texts are valid YAML."""
    value = "{{ (value_json.stops[0].departures | first | default({})).time | default('-') }}"
    return (
        "rest:\n"
        f"  - resource: {json.dumps(url)}\n"
        "    headers:\n"
        "      Accept: application/json\n"
        "    scan_interval: 30\n"
        "    sensor:\n"
        '      - name: "Next departure"\n'
        f"        value_template: {json.dumps(value)}\n"
        '        json_attributes_path: "$.stops[0]"\n'
        "        json_attributes: [name, state, departures]\n"
    )
