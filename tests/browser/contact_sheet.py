"""The contact sheet: pages in all states, sizes, themes and languages, each two of them together at least once.

python -m tests.browser.contact_sheet docs/images/contact-sheet.png writes it; test_contact_sheet.py compares it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.browser import program
from tests.browser.chromium import STREAM, chromium
from tests.browser.screenshots import reduce_colors

if TYPE_CHECKING:
    from PIL.Image import Image
    from playwright.sync_api import Browser

COLUMNS, CELL = 10, (180, 180)
"""Pictures in a row, and the largest width and height of each."""

SIZES = ((360, 640), (800, 480), (1920, 1080), (1080, 1920), (3840, 2160))
THEMES = ("light", "dark", "contrast", "paper", "forced colours")
LANGUAGES = ("nl", "en", "de", "fr")
JOURNEYS = {"journey": "1", "cancelled journey": "N88"}
"""The line of each, on the board of the station."""


class Look(NamedTuple):
    """A picture: a page and how it is shown."""

    name: str
    size: tuple[int, int]
    theme: str
    lang: str


def pairwise() -> list[Look]:
    """Return looks in which each two values of different parameters occur together: greedily, in a fixed order."""
    values = ((*program.LOOKS, *JOURNEYS), SIZES, THEMES, LANGUAGES)
    candidates = [Look(*look) for look in product(*values)]

    def pairs(look: Look) -> set[object]:
        return set(combinations(enumerate(look), 2))

    missing = set().union(*map(pairs, candidates))
    looks = []
    while missing:
        best = max(candidates, key=lambda look: len(pairs(look) & missing))
        looks.append(best)
        missing -= pairs(best)
    return sorted(looks, key=lambda look: tuple(part.index(value) for part, value in zip(values, look, strict=True)))


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run servers in every state, whose clocks are still, in a context; yield their URLs by name."""
    with (
        program.servers(folder) as urls,
        program.still(urls["served"]),
        program.still(urls["silent"]),
        program.still(urls["down"]),
    ):
        yield urls


def picture(browser: Browser, urls: dict[str, str], look: Look) -> Image:
    """Return a picture in the size of a cell."""
    from PIL import Image

    name = "live" if look.name in JOURNEYS else look.name
    server, path = program.LOOKS[name]
    theme = "" if look.theme == "forced colours" else f"&theme={look.theme}"
    options: Any = {"viewport": {"width": look.size[0], "height": look.size[1]}, "forced_colors": "none"}
    if not theme:
        options["forced_colors"] = "active"
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.add_init_script(STREAM)
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        url = f"{urls[server]}{path}{'&' if '?' in path else '?'}lang={look.lang}{theme}"
        page.goto(url)
        if look.name in JOURNEYS:
            row = page.locator("tbody tr", has=page.locator("th .unseen", has_text=JOURNEYS[look.name])).first
            link = row.locator(".name a").get_attribute("href")
            page.goto(f"{urls[server]}{link}")  # which passes on the theme
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.thumbnail(CELL)
    return image


def place_of(number: int) -> tuple[int, int]:
    """Return the left upper corner of a picture on the sheet."""
    row, column = divmod(number, COLUMNS)
    return column * (CELL[0] + 8) + 8, row * (CELL[1] + 8) + 8


def sheet(images: Iterable[Image]) -> bytes:
    """Return the pictures side by side, as PNG."""
    from PIL import Image

    cells = list(images)
    right, bottom = COLUMNS * (CELL[0] + 8) + 8, place_of(len(cells) - 1)[1] + CELL[1] + 8
    result = Image.new("RGB", (right, bottom), "#808080")
    for number, image in enumerate(cells):
        result.paste(image, place_of(number))
    output = io.BytesIO()
    result.save(output, "PNG")
    return reduce_colors(output.getvalue(), 256)


def main(path: Path) -> None:
    """Write the sheet."""
    looks = pairwise()
    with TemporaryDirectory() as name, servers(Path(name)) as urls, chromium() as browser:
        png = sheet(picture(browser, urls, look) for look in looks)
    path.write_bytes(png)
    print(f"{path.name}: {len(looks)} pictures, {len(png)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
