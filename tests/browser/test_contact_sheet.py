"""Pictures of pages compared with those of docs/images/contact-sheet.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.contact_sheet import pairwise, picture, place_of, servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHEET = Path(__file__).parents[2] / "docs/images/contact-sheet.png"
EVERY = 4
"""One of so many pictures is compared."""
MAX_DIFFERENT = 0.08
"""The share of pixels that may differ: letters of another font do, another layout differs more."""
CONTRAST = 64
"""The difference of brightness from which a pixel differs, of 255."""


def test_pages_look_as_before(browser: Browser, tmp_path: Path) -> None:
    """Pages look as on the contact sheet, at the same time of day; make screenshots takes it again."""
    from PIL import Image, ImageChops

    known = Image.open(SHEET).convert("RGB")
    with servers(tmp_path) as urls:
        for number, look in list(enumerate(pairwise()))[::EVERY]:
            image = picture(browser, urls, look)
            left, top = place_of(number)
            before = known.crop((left, top, left + image.width, top + image.height))
            histogram = ImageChops.difference(image, before).convert("L").histogram()
            assert sum(histogram[CONTRAST:]) <= MAX_DIFFERENT * image.width * image.height, look


def test_every_pair_is_on_the_sheet() -> None:
    """Each two values of the parameters are together in one of at most 80 pictures."""
    looks = pairwise()
    assert len(looks) <= 80
    assert len({(look.name, look.size) for look in looks}) == len({look.name for look in looks}) * 5
    assert len({(look.theme, look.lang) for look in looks}) == 5 * 4
