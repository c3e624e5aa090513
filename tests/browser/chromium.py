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
KIOSK: Any = {"width": 800, "height": 480}
SIZES: tuple[Any, ...] = (
    KIOSK,
    {"width": 360, "height": 640},
    {"width": 1920, "height": 1080},
    {"width": 1080, "height": 1920},
    {"width": 3840, "height": 2160},
)

# Elements with text that is wider than their box, apart from images, boxes that scroll, and texts for screen readers.
OVERFLOWING = """() => [...document.querySelectorAll("body *:not(svg *):not(.unseen)")].filter(node =>
  node.clientWidth && node.scrollWidth > node.clientWidth + 1
  && !["auto", "scroll"].includes(getComputedStyle(node).overflowX)
  && !node.matches("tbody, .messages, table, .stop, main, thead th, input, .preview"))
  .map(node => node.outerHTML.slice(0, 120))"""

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

# Stops the clock, and adds up what moves: the cumulative layout shift (web.dev/articles/cls).
MEASURE = """
Date.now = () => 0;
new PerformanceObserver(list => {
  window.shift = (window.shift || 0) + list.getEntries().reduce((sum, entry) => sum + entry.value, 0);
}).observe({type: "layout-shift", buffered: true});
"""
SHIFTED = "new Promise(done => requestAnimationFrame(() => done(window.shift || 0)))"
TRANSFERRED = "performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize || 0), 0)"


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
