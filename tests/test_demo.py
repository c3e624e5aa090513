"""A demo marks itself wherever its departures are shown, and is never started by accident."""

from lxml import html
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.application import make_service
from govi_server.errors import ConfigError
from govi_server.pages.texts import TEXTS
from govi_server.settings_loader import load
from govi_server.simulator.town import STATION
from tests import configuration
from tests.examples import SOURCES, Program

PAGES = ("/", f"/board/{STATION}", f"/board/{STATION}?view=wall", "/board/1", "/docs")
"""All kinds of pages."""


FICTIONAL = ("demo", "feed")
"""The sources whose data is fictional in these tests; the feed learns it from the simulator's messages."""


class DemoTests(SynchronousTestCase):
    """The marks of a demo."""

    def test_every_page_says_so(self) -> None:
        """Every page of the demo and of a simulated feed says so, in every language; no other does."""
        notes = {texts["demo"] for texts in TEXTS.values()}
        self.assertEqual(len(notes), len(TEXTS))
        for source in SOURCES:
            program = Program(source)
            for path in PAGES:
                for lang, texts in TEXTS.items():
                    separator = "&" if "?" in path else "?"
                    body = program.request(f"{path}{separator}lang={lang}", "text/html").body.decode()
                    expected = {texts["demo"]} if source in FICTIONAL else set()
                    if path == "/docs":
                        expected = {TEXTS["en"]["demo"]} if source in FICTIONAL else set()
                    body = body.replace("\N{NO-BREAK SPACE}", " ")  # of French
                    self.assertEqual({note for note in notes if note in body}, expected)

    def test_every_response_says_so(self) -> None:
        """Every response of the demo and of a simulated feed has the header field, also repeated ones and errors."""
        for source in SOURCES:
            program = Program(source)
            for path in (
                *PAGES,
                f"/kv55/{STATION}",
                f"/kv55/{STATION}",
                f"/tpc/{STATION}",
                "/absent",
                "/kv55/x?limit=x",
            ):
                headers = program.request(path).headers
                self.assertEqual(headers["Data-Source"], "demo" if source in FICTIONAL else None, path)
                exposed = headers["Access-Control-Expose-Headers"].split(", ")
                self.assertIn("Data-Source", exposed)

    def test_log_says_so(self) -> None:
        """The log of the demo begins with a warning; no other does."""
        for source, settings in SOURCES.items():
            events = EventLoggingObserver()
            globalLogPublisher.addObserver(events)
            make_service(load(None, settings), MemoryReactorClock())
            globalLogPublisher.removeObserver(events)
            warnings = [formatEvent(event) for event in events if event["log_level"] == LogLevel.warn]
            self.assertEqual([warning for warning in warnings if "fictional" in warning], warnings)
            self.assertEqual(bool(warnings), source == "demo")

    def test_simulated_feed_is_noticed(self) -> None:
        """A feed is not marked before the simulator's data arrives; then a warning is logged once."""
        program = Program("feed", has_data=False)
        self.assertNotIn(TEXTS["nl"]["demo"], program.request(f"/board/{STATION}", "text/html").body.decode())
        self.assertIsNone(program.request("/").headers["Data-Source"])
        events = EventLoggingObserver()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        Program("feed")
        warnings = [formatEvent(event) or "" for event in events if event["log_level"] == LogLevel.warn]
        self.assertEqual([warning for warning in warnings if "fictional" in warning][1:], [])
        self.assertIn("fictional", "".join(warnings))

    def test_open_page_reloads(self) -> None:
        """A page that was opened before the feed was known to be fictional gets another version, hence reloads."""
        versions = [
            html.fromstring(Program("feed", has_data).request(f"/board/{STATION}", "text/html").body.decode()).xpath(
                "string(//@data-version)"
            )
            for has_data in (False, True)
        ]
        self.assertNotEqual(*versions)

    def test_source_must_be_chosen(self) -> None:
        """Without a source there is no configuration; the error names all sources."""
        error = str(self.assertRaises(ConfigError, load, None, {}))
        for name in ("modules.kv55.source", "--source", "demo", "govi", "kv78turbo"):
            self.assertIn(name, error)
        error = str(self.assertRaises(ConfigError, load, str(configuration.TOML), {}))
        self.assertIn("etc/govi-cache.toml: modules.kv55.source: no source is chosen", error)

    def test_demo_is_not_combined(self) -> None:
        """A demo has no other source: its departures would be beside real ones."""
        options = {"modules.kv55.source": "demo", "modules.other.source": "govi", "modules.other.callback": "tcp:1"}
        error = str(self.assertRaises(ConfigError, load, None, options))
        self.assertIn("'demo' cannot be combined with the source 'govi' of another module", error)
