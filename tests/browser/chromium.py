"""A browser to look at pages with: the Chromium that is installed.

Playwright comes with the group "browser" only, and so is imported where it is used: other tests are found without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

EVENTS_ARE_SERVED = True
"""Whether /events/<codes> is there: set when it is, and test_events.py is tried."""

DESK: Any = {"width": 1024, "height": 768}
PHONE: Any = {"width": 360, "height": 740}
WALL: Any = {"width": 1280, "height": 720}

# A stream that is open, beats, and says what a test has it say, in a page of which the script is looked at.
STREAM = """
window.EventSource = function () {
  const stream = window.stream = this;
  this.readyState = 1;
  this.heard = {};
  setInterval(() => { if (stream.readyState === 1) { stream.say("beat", ""); } }, 15000);
};
EventSource.prototype.close = function () { this.readyState = 2; };
EventSource.prototype.addEventListener = function (name, use) { this.heard[name] = use; };
EventSource.prototype.say = function (name, data) { if (this.heard[name]) { this.heard[name]({data: data}); } };
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium: that of the system, or the one that CHROMIUM names."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "Chromium is not here: apt install chromium, or say where it is in CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def silence(context: BrowserContext) -> None:
    """Have no stream of events, but an empty one, until there are any."""
    if not EVENTS_ARE_SERVED:
        empty = {"content_type": "text/event-stream", "body": "retry: 3600000\n\n"}
        context.route("**/events/**", lambda route: route.fulfill(**empty))
