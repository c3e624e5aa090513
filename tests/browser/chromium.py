"""The installed Chromium.

Playwright is an optional dependency (the group "browser"). It is imported where it is used, because test runners
import these modules without it.
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

# Replaces the page's event stream by one that is open, sends beats, and sends the events of the test.
STREAM = """
window.EventSource = function () {
  const stream = window.stream = this;
  this.readyState = 1;
  this.listeners = {};
  setInterval(() => { if (stream.readyState === 1) { stream.emit("beat", ""); } }, 10000);
};
EventSource.prototype.close = function () { this.readyState = 2; };
EventSource.prototype.addEventListener = function (name, listener) { this.listeners[name] = listener; };
EventSource.prototype.emit = function (name, data) {
  if (this.listeners[name]) { this.listeners[name]({data: data}); }
};
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium, or the program that the environment variable CHROMIUM names; yield it."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "Chromium is not installed: apt install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
