"""The HTML report of govi-stats."""

import re
from datetime import UTC, datetime, timedelta

from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.html_report import page
from govi_server.statistics.report import verdict
from govi_server.statistics.summary import LogSummary
from tests.statistics.logs import NOW, line, request, summarize

_SVG = "svg"


def tree(text: str) -> etree._Element:
    """Parse a page as XML, which fails if anything is not closed or escaped."""
    body = text[text.index("<body>") : text.index("</html>")].replace("<br>", "<br/>")
    return etree.fromstring(body)


def plot(text: str, title: str) -> etree._Element:
    """Return the plot with this title."""
    for figure in tree(text).iter("figure"):
        caption = figure.find("figcaption")
        if caption is not None and (caption.text or "").strip() == title:
            image = figure.find(_SVG)
            assert image is not None
            return image
    raise AssertionError(f"no plot {title}")


def three_days() -> LogSummary:
    """Return the summary of three days with no requests on the second."""
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
    """The content of the page."""

    def test_page_is_self_contained(self) -> None:
        """The page has no scripts and loads nothing."""
        text = page(three_days(), NOW)
        self.assertNotRegex(text, r"(?i)<script|<link|<img|https?:|url\(|@import|\son\w+=")
        self.assertIn("prefers-color-scheme: dark", text)
        self.assertIn('name="viewport"', text)

    def test_plots_are_described(self) -> None:
        """The page has every plot, with a description."""
        text = page(three_days(), NOW)
        captions = [(caption.text or "").strip() for caption in tree(text).iter("figcaption")]
        for title in (
            "From memory",
            "From the source",
            "Hit ratio",
            "Status 2xx",
            "Status 5xx",
            "No response",
            "wait",
        ):
            self.assertIn(title, captions)
            self.assertGreater(len(plot(text, title).get("aria-label") or ""), 20)

    def test_histograms_count_every_response(self) -> None:
        """Hits and misses have separate histograms, whose bars add up to the number of responses."""
        text = page(three_days(), NOW)
        for title, expected in (("From memory", 48), ("From the source", 96)):
            bars = [bar.findtext("title") or "" for bar in plot(text, title).iter("rect")]
            self.assertEqual(sum(int(bar.rpartition(" ")[2]) for bar in bars), expected)
        slow = [bar.findtext("title") for bar in plot(text, "From the source").iter("rect")]
        self.assertIn("up to 10 s: 48", slow)
        self.assertIn("up to 500 ms: 48", slow)

    def test_gap_in_the_log_is_a_gap_in_the_line(self) -> None:
        """A period without requests interrupts the line of a plot."""
        path = next(plot(page(three_days(), NOW), "Hit ratio").iter("path")).get("d") or ""
        self.assertEqual((path.count("M"), path.count("L")), (2, 46))

    def test_two_hours_are_shown_by_minute(self) -> None:
        """A log of less than two hours is shown by minute, with labels at round times."""
        summary = summarize(*(line(request(), time=(NOW + timedelta(minutes=n)).isoformat()) for n in range(119)))
        text = page(summary, NOW)
        path = next(plot(text, "Hit ratio").iter("path")).get("d") or ""
        self.assertEqual((path.count("M"), path.count("L")), (1, 118))
        labels = [label.text for label in plot(text, "Hit ratio").iter("text")]
        self.assertEqual([label for label in labels if label and ":" in label], ["13:00", "13:30", "14:00", "14:30"])
        summary.add_line(line(request(), time=(NOW + timedelta(minutes=120)).isoformat()))
        self.assertEqual((summary.width, len(summary.periods())), ("hour", 3))

    def test_midnights_are_labelled_with_the_day(self) -> None:
        """Midnights are labelled with their day, before and after the end of summer time."""
        start = datetime(2026, 10, 24, 12, tzinfo=UTC)
        summary = summarize(*(line(request(), time=(start + timedelta(hours=n)).isoformat()) for n in range(60)))
        labels = [label.text for label in plot(page(summary, NOW), "Hit ratio").iter("text")]
        self.assertEqual(labels[3:], ["Sun 25", "12:00", "Mon 26", "12:00", "Tue 27"])

    def test_verdict_and_explanations(self) -> None:
        """The page begins with the verdict of the text report, and says what the names in its tables mean."""
        summary = three_days()
        header, *_ = tree(page(summary, NOW)).iter("header")
        self.assertEqual(header.findall("p")[1].text, verdict(summary))
        self.assertIn("Many failures", verdict(summary))
        body = tree(page(summary, NOW))
        names = {name for node in body.iterfind("dl/dt") for name in (node.text or "").split(", ")}
        heads = {head.text for head in body.iterfind("div/table/thead/tr/th") if head.text}
        self.assertLessEqual(heads - {"max", "mean"}, names)

    def test_bad_lines_are_counted(self) -> None:
        """The totals include the number of bad lines, if any."""
        self.assertNotIn("Bad lines", page(summarize(line()), NOW))
        self.assertIn("Bad lines", page(summarize(line(), b"broken"), NOW))

    def test_shapes_are_within_the_image(self) -> None:
        """All shapes are within their image."""
        for svg in tree(page(three_days(), NOW)).iter(_SVG):
            for bar in svg.iter("rect"):
                self.assertGreaterEqual(float(bar.get("y") or -1), 0)
                self.assertLessEqual(float(bar.get("x") or 999) + float(bar.get("width") or 999), 360)
            for path in svg.iter("path"):
                for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d") or ""):
                    self.assertTrue(0 <= float(x) <= 360 and 0 <= float(y) <= 172, (x, y))

    def test_extreme_logs_are_rendered(self) -> None:
        """The page is rendered for no lines, one line, no responses, and times that are 0 or huge."""
        for summary in (
            summarize(),
            summarize(line()),
            summarize(line(request(None, "", None, "none", receive=1.0))),
            summarize(line(request(parse=0.0, send=0.0))),
            summarize(line(request(wait=1e9))),
        ):
            self.assertIsNotNone(tree(page(summary, NOW)).find("header"))
        self.assertIn("No line matched", page(summarize(), NOW))

    def test_logged_text_is_escaped(self) -> None:
        """Markup in a logged name is escaped."""
        text = page(summarize(line(request('<script>"&\x27'))), NOW)
        self.assertNotIn("<script", text)
        self.assertIn("&lt;script&gt;", text)

    def test_contrast_is_sufficient(self) -> None:
        """Texts and plots contrast with both backgrounds in both themes (WCAG AA)."""
        themes = re.findall(r"--(\w+): #(\w{3,6})", page(summarize(), NOW))
        colours = ("back", "card", "text", "dim", "line", "memory", "source", "bad")
        self.assertEqual([name for name, _ in themes], [*colours, *colours])
        for theme in (dict(themes[:8]), dict(themes[8:])):
            for name in ("text", "dim", "memory", "source", "bad"):
                for back in ("back", "card"):
                    light, dark = sorted((luminance(theme[name]), luminance(theme[back])), reverse=True)
                    self.assertGreaterEqual((light + 0.05) / (dark + 0.05), 4.5, (name, theme[name], back))


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2), from 0 to 1."""
    colour = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(colour[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
