"""Tests of govi_server.operations.status_page."""

import gzip
import re

from twisted.logger import Logger

from govi_server.departures.times import utc_timestamp
from govi_server.operations.history import BOARD_RESULTS
from govi_server.operations.status_page import page
from tests import feed as kv
from tests.client import NOW
from tests.operations.case import CODE, OperationsTestCase
from tests.statistics.test_html_report import luminance


def contrast(first: float, second: float) -> float:
    """Return the contrast ratio of two luminances."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


class StatusPageTests(OperationsTestCase):
    """The status page."""

    def test_bars_differ_in_lightness(self) -> None:
        """The bars differ in lightness from the background and from each other, in both themes."""
        themes = re.findall(r"--panel: (#\w+);(.*?)}", page(self.status.json()).decode(), re.DOTALL)
        self.assertEqual(len(themes), 2)
        for panel, rules in themes:
            colours = dict(re.findall(r"--(\w+): #(\w{6})", rules))
            bars = {name: luminance(colours[name]) for name in BOARD_RESULTS}
            for name, lightness in bars.items():
                self.assertGreaterEqual(contrast(lightness, luminance(panel[1:])), 3, name)
                for other in bars.keys() - {name}:
                    self.assertGreaterEqual(contrast(lightness, bars[other]), 1.35, (name, other))

    def test_texts_of_shares_feeds_and_events(self) -> None:
        """A small share is below 1 %, not 0 %; a feed without a connection is shown; events of today have no date."""
        self.log_requests(("/kv55/1", 200, "joined"), *[("/kv55/1", 200, "hit")] * 999)
        self.subscriber.state = "DOWN"
        self.subscriber.attempts = 2
        Logger().warn("something")
        text = page(self.status.json()).decode()
        self.assertIn("joined 1 (&lt;1%)", text)
        self.assertIn("trying</th><td>tcp://feed.example:7817", text)
        self.assertIn("reconnects</th><td>1", text)
        self.assertIn(f'>{utc_timestamp(NOW)[11:]}</time>\n<b class="middle">warn</b> something', text)

    def test_list_names_minutes_and_incidents_are_written_out(self) -> None:
        """Requests for several stops, the current minute and the absence of incidents have texts of their own."""
        self.log_requests(("/tpc/several", 200, "hit"))
        text = page(self.status.json()).decode()
        self.assertIn("<title>just now: 1 hit</title>", text)
        self.assertIn("(several stops)</th><td>1", text)
        self.assertIn('<h2>Incidents since start</h2>\n<p class="soft">none</p>', text)
        self.assertIn("<h1>UP</h1>\n<p>since", text)

    def test_page_is_self_contained(self) -> None:
        """The page shows the health, reloads itself, loads nothing else, and escapes foreign text."""
        Logger().warn("<script>alert(1)</script>")
        self.log_requests((f"/kv55/{CODE}", 200, "hit"), client="<i>")
        text = page(self.status.json()).decode()
        self.assertIn("<h1>UP</h1>", text)
        self.assertIn('refreshed every 10 s: <a href="?still">', " ".join(text.split()))
        self.assertNotIn("<script", text)
        self.assertNotIn("<i>", text.replace("<i style", ""))
        for reference in ("http://", "https://", "src=", "@import", "url("):
            self.assertNotIn(reference, text)

    def test_verdict_agrees_with_the_chart(self) -> None:
        """Above a chart with many failures the color is not that of a healthy service, and the title names them."""
        self.log_requests(("/kv55/1", 200, "hit"))
        self.assertIn("--verdict: var(--good)", page(self.status.json()).decode())
        self.log_requests(*[("/kv55/2", 504, "miss")] * 3)
        text = page(self.status.json()).decode()
        self.assertIn("--verdict: var(--middle)", text)
        self.assertIn("<h1>UP, with failed requests</h1>", text)
        self.assertIn("3 of 4 board requests (75.0%) failed", text)
        self.assertIn("timeout 3 (75%)", text)

    def test_what_changed_operators_limits_and_configuration(self) -> None:
        """The page lists changes of the health, operators, limits and the configuration in force."""
        self.feed.received("/GOVI/KV8passtimes/OWN", gzip.compress(kv.passtimes({})))
        self.subscriber.state = "DOWN"
        self.monitor.health()
        self.clock.advance(400)
        text = page(self.status.json()).decode()
        self.assertRegex(text, r'<b class="middle">DEGRADED</b> Live feed DOWN</li>')
        self.assertRegex(text, r'<b class="bad">old</b></td><td class="figure">400 s ago')
        self.assertIn('<meter max="50000" high="45000.0" value="0" title="cache.entries">', text)
        self.assertIn("All settings have their defaults.", text)

    def test_page_without_sources(self) -> None:
        """The page is rendered without gateways, a feed and a history."""
        self.components.gateways.clear()
        self.components.feed = None
        self.assertIn(b"none in the last hour", page(self.status.json()))
