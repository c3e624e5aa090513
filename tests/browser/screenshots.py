"""Take screenshots of the board in each of its states: python -m tests.browser.screenshots docs/images."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.browser import program
from tests.browser.chromium import PHONE, STREAM, WALL, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MAX_COLORS = 128
"""Colours of a picture; a board has few, apart from the edges of its letters."""

_TABLE: Any = {"width": 760, "height": 300}


class Picture(NamedTuple):
    """The page of a picture, and how the browser shows it."""

    look: str
    size: Any = _TABLE
    lang: str = "nl"
    dark: bool = False
    lost: bool = False
    """Whether the connection to the server is lost."""


PICTURES = {
    "board": Picture("live"),
    "board-dark": Picture("live", lang="en", dark=True),
    "board-phone": Picture("live", PHONE),
    "cancelled": Picture("cancelled"),
    "planned": Picture("planned"),
    "last-known": Picture("last known"),
    "none": Picture("none"),
    "unknown": Picture("unknown"),
    "down": Picture("down"),
    "no-connection": Picture("live", {"width": 760, "height": 880}, lost=True),
    "wall": Picture("wall", WALL),
    "wall-of-two": Picture("wall of two", WALL),
}


def screenshot(browser: Browser, url: str, picture: Picture) -> bytes:
    """Return a screenshot as PNG: of the whole page, or of the visible part of a wall."""
    with browser.new_context(
        viewport=picture.size,
        device_scale_factor=2 if picture.size is PHONE else 1,
        color_scheme="dark" if picture.dark else "light",
        locale=picture.lang,
    ) as context:
        page = context.new_page()
        page.add_init_script(STREAM)
        page.clock.install()
        page.goto(url)
        if picture.lost:
            context.set_offline(True)
            page.evaluate("stream.readyState = 0")
            page.clock.fast_forward(20_000)
            page.locator("#offline").wait_for()
        return page.screenshot(full_page=picture.size is not WALL)


def reduce_colors(png: bytes, colors: int = MAX_COLORS) -> bytes:
    """Return a picture with at most so many colours, as PNG."""
    from PIL import Image

    output = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(colors, dither=Image.Dither.NONE)
    image.save(output, "PNG", optimize=True)
    return output.getvalue()


def main(folder: Path) -> None:
    """Write all screenshots to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name, program.servers(Path(name)) as servers, chromium() as browser:
        for title, picture in PICTURES.items():
            server, path = program.LOOKS[picture.look]
            png = reduce_colors(screenshot(browser, servers[server] + path, picture))
            (folder / f"{title}.png").write_bytes(png)
            print(f"{title}.png: {len(png)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
