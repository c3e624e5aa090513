"""The events of the log, made printable before they are written."""

from io import StringIO

from hypothesis import given
from twisted.logger import Logger, LogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.printable_log import MAX_TRACEBACK_LINES, install
from govi_server.runtime.text import MAX_LINE_CHARACTERS
from tests.runtime.test_text import TEXTS, is_safe

HOSTILE = ("\x1b[2J", "\x9b\x7f\0", "\n2026-01-01 forged\r\x85\u2028", "\u202e", "{x} {{ }} {0}", "y" * 1_000_000)


class PrintableLogTests(SynchronousTestCase):
    """What a log observer of twistd writes."""

    def setUp(self) -> None:
        self.out = StringIO()
        self.publisher = LogPublisher()
        install(self.publisher)
        self.publisher.addObserver(textFileLogObserver(self.out))
        self.log = Logger("test", observer=self.publisher)

    def lines(self) -> list[str]:
        """Return the lines written since the last call; each is safe and bounded."""
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        lines = text.splitlines()
        self.assertEqual(lines, text.split("\n")[:-1])  # no other character ends a line
        for line in lines:
            self.assertTrue(is_safe(line.removeprefix("\t")), line[:200])
            self.assertLessEqual(len(line), MAX_LINE_CHARACTERS + 200)
        return lines

    def test_ordinary_events_are_unchanged(self) -> None:
        """Ordinary events are written as they are."""
        self.log.info("{name}: {n} braces {{}} {text!r}", name="Utrecht, Café", n=2, text="a")
        (line,) = self.lines()
        self.assertTrue(line.endswith("[test#info] Utrecht, Café: 2 braces {} 'a'"), line)

    def test_fields_and_formats(self) -> None:
        """Texts in fields, formats and systems are one line each."""
        for text in HOSTILE:
            self.log.warn("field {text} of {other!r}", text=text, other=text)
            self.log.info(text.replace("{", "{{").replace("}", "}}"))
            self.log.info("system", log_system=text)
            self.publisher({"log_format": "{text}", "text": text, "log_namespace": "a", "log_level": None})
            self.assertEqual(len(self.lines()), 4, text[:20])

    def test_tracebacks(self) -> None:
        """Tracebacks that quote a text are indented, and bounded in lines and characters."""
        for text in (*HOSTILE, "a\n" * 100_000):
            try:
                raise ValueError(text)
            except ValueError:
                self.log.failure("failed: {text}", text=text)
                self.log.failure("failed again", Failure())
            lines = self.lines()
            self.assertLessEqual(len(lines), 2 * (MAX_TRACEBACK_LINES + 2))
            self.assertEqual(sum(not line.startswith("\t") for line in lines), 2)
            self.assertTrue(any("ValueError" in line for line in lines))

    def test_unformattable_events(self) -> None:
        """Events whose fields fail to be formatted do not stop the log."""

        class Failing:
            def __repr__(self) -> str:
                raise ZeroDivisionError("\x1b")

        self.log.info("{failing!r} {missing}", failing=Failing())
        self.log.info("next")
        self.assertIn("next", self.lines()[-1])

    @given(TEXTS, TEXTS)
    def test_any_text(self, text: str, other: str) -> None:
        """Any text is one safe line."""
        self.log.info("{text}: {other}", text=text, other=other)
        self.assertEqual(len(self.lines()), 1)
