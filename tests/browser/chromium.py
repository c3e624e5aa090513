"""The installed Chromium.

Playwright is an optional dependency (the group "browser"), which is imported where it is used: test runners import
these modules without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DESKTOP: Any = {"width": 1024, "height": 768}
PHONE: Any = {"width": 360, "height": 740}
WALL: Any = {"width": 1280, "height": 720}

# In place of the page's stream of events: one that is open, beats, and sends the events that a test makes it send.
STREAM = """
window.EventSource = function () {
  const stream = window.stream = this;
  this.readyState = 1;
  this.listeners = {};
  setInterval(() => { if (stream.readyState === 1) { stream.emit("beat", ""); } }, 15000);
};
EventSource.prototype.close = function () { this.readyState = 2; };
EventSource.prototype.addEventListener = function (name, use) { this.listeners[name] = use; };
EventSource.prototype.emit = function (name, data) {
  if (this.listeners[name]) { this.listeners[name]({data: data}); }
};
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium: that of the system, or the one at the path in CHROMIUM."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "Chromium is not installed: apt install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
