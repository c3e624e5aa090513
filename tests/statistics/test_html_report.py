"""The page of govi-stats."""

import re
from datetime import UTC, datetime, timedelta

from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.html_report import page
from govi_server.statistics.summary import LogSummary
from tests.statistics.logs import NOW, line, request, summarize

_SVG = "svg"


def tree(text: str) -> etree._Element:
    """Read a page strictly: what is not closed or escaped raises."""
    body = text[text.index("<body>") : text.index("</html>")].replace("<br>", "<br/>")
    return etree.fromstring(body)


def plot(text: str, title: str) -> etree._Element:
    """Find the plot whose caption begins so."""
    for figure in tree(text).iter("figure"):
        caption = figure.find("figcaption")
        if caption is not None and (caption.text or "").strip() == title:
            found = figure.find(_SVG)
            assert found is not None
            return found
    raise AssertionError(f"no plot {title}")


def week() -> LogSummary:
    """Read three days, with a gap of one."""
    return summarize(
        *(
            line(
                request(),
                request(cache="miss", wait=210.0 + hour),
                request("kv55", "2", 504, "joined", wait=10_000.0),
                request(None, "", 404, "none"),
                request(status=None, cache="miss", wait=5.0),
                time=(NOW - timedelta(hours=hour)).isoformat(),
            )
            for hour in range(72)
            if not 24 <= hour < 48
        )
    )


class PageTests(SynchronousTestCase):
    """What is on it."""

    def test_alone(self) -> None:
        """It needs nothing else: no script, no address but those of its own."""
        text = page(week(), NOW)
        self.assertNotRegex(text, r"(?i)<script|<link|<img|https?:|url\(|@import|\son\w+=")
        self.assertIn("prefers-color-scheme: dark", text)
        self.assertIn('name="viewport"', text)

    def test_plots(self) -> None:
        """It has the plots that people look for, and each says in words what it shows."""
        text = page(week(), NOW)
        captions = [(each.text or "").strip() for each in tree(text).iter("figcaption")]
        for title in ("From memory", "From the source", "Hit ratio", "Status 2xx", "Status 5xx", "No answer", "wait"):
            self.assertIn(title, captions)
            self.assertGreater(len(plot(text, title).get("aria-label") or ""), 20)

    def test_histogram(self) -> None:
        """Hits and misses are apart, and the bars are as many as the answers."""
        text = page(week(), NOW)
        for title, expected in (("From memory", 48), ("From the source", 96)):
            bars = [each.findtext("title") or "" for each in plot(text, title).iter("rect")]
            self.assertEqual(sum(int(bar.rpartition(" ")[2]) for bar in bars), expected)
        slow = [each.findtext("title") for each in plot(text, "From the source").iter("rect")]
        self.assertIn("up to 10 s: 48", slow)
        self.assertIn("up to 500 ms: 48", slow)

    def test_gap(self) -> None:
        """Where there are no lines, the line has a gap."""
        path = next(plot(page(week(), NOW), "Hit ratio").iter("path")).get("d") or ""
        self.assertEqual((path.count("M"), path.count("L")), (2, 46))

    def test_minutes(self) -> None:
        """Less than two hours are shown by the minute, as lines and with the time at round minutes."""
        read = summarize(*(line(request(), time=(NOW + timedelta(minutes=n)).isoformat()) for n in range(119)))
        text = page(read, NOW)
        path = next(plot(text, "Hit ratio").iter("path")).get("d") or ""
        self.assertEqual((path.count("M"), path.count("L")), (1, 118))
        labels = [each.text for each in plot(text, "Hit ratio").iter("text")]
        self.assertEqual([label for label in labels if label and ":" in label], ["13:00", "13:30", "14:00", "14:30"])
        read.add_line(line(request(), time=(NOW + timedelta(minutes=120)).isoformat()))
        self.assertEqual((read.width, len(read.periods())), ("hour", 3))

    def test_labels(self) -> None:
        """Midnights have the name of their day, on both sides of the night in which an hour comes twice."""
        begins = datetime(2026, 10, 24, 12, tzinfo=UTC)
        read = summarize(*(line(request(), time=(begins + timedelta(hours=n)).isoformat()) for n in range(60)))
        labels = [each.text for each in plot(page(read, NOW), "Hit ratio").iter("text")]
        self.assertEqual(labels[3:], ["Sun 25", "12:00", "Mon 26", "12:00", "Tue 27"])

    def test_bad_lines(self) -> None:
        """Bad lines are told when there are any."""
        self.assertNotIn("Bad lines", page(summarize(line()), NOW))
        self.assertIn("Bad lines", page(summarize(line(), b"broken"), NOW))

    def test_within(self) -> None:
        """Nothing is drawn outside of a plot."""
        for svg in tree(page(week(), NOW)).iter(_SVG):
            for bar in svg.iter("rect"):
                self.assertGreaterEqual(float(bar.get("y") or -1), 0)
                self.assertLessEqual(float(bar.get("x") or 999) + float(bar.get("width") or 999), 360)
            for path in svg.iter("path"):
                for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d") or ""):
                    self.assertTrue(0 <= float(x) <= 360 and 0 <= float(y) <= 172, (x, y))

    def test_small(self) -> None:
        """A page of no line, of one, of no answers, and of nothing but zeros can be made."""
        for read in (
            summarize(),
            summarize(line()),
            summarize(line(request(None, "", None, "none", receive=1.0))),
            summarize(line(request(parse=0.0, send=0.0))),
            summarize(line(request(wait=1e9))),
        ):
            self.assertIsNotNone(tree(page(read, NOW)).find("header"))
        self.assertIn("No line matched", page(summarize(), NOW))

    def test_escaped(self) -> None:
        """What a stranger wrote is text."""
        text = page(summarize(line(request('<script>"&\x27'))), NOW)
        self.assertNotIn("<script", text)
        self.assertIn("&lt;script&gt;", text)

    def test_contrast(self) -> None:
        """Texts and plots are told from both of their backgrounds, in light and in dark (WCAG AA)."""
        themes = re.findall(r"--(\w+): #(\w{3,6})", page(summarize(), NOW))
        colours = ("back", "card", "text", "dim", "line", "memory", "source", "bad")
        self.assertEqual([name for name, _ in themes], [*colours, *colours])
        for theme in (dict(themes[:8]), dict(themes[8:])):
            for name in ("text", "dim", "memory", "source", "bad"):
                for back in ("back", "card"):
                    light, dark = sorted((luminance(theme[name]), luminance(theme[back])), reverse=True)
                    self.assertGreaterEqual((light + 0.05) / (dark + 0.05), 4.5, (name, theme[name], back))


def luminance(colour: str) -> float:
    """Tell how light a colour is, as WCAG 2 has it."""
    colour = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(colour[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
