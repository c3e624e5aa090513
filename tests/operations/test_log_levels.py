"""Tests of govi_server.operations.log_levels."""

import io

from twisted.logger import LogEvent, Logger, LogPublisher, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.log_levels import LogLevels


class LogLevelsTests(SynchronousTestCase):
    """The events that are written to the log."""

    def test_levels_filter_the_file_only(self) -> None:
        """Levels filter the events of the file, not those of other observers; stopping removes the filters."""
        file = io.StringIO()
        events: list[LogEvent] = []
        publisher = LogPublisher(textFileLogObserver(file), events.append)  # type: ignore[arg-type]
        levels, logger = LogLevels((), publisher), Logger("a.b", observer=publisher)
        levels.startService()
        events.clear()
        logger.debug("first")
        levels.set("a", "debug")
        logger.debug("second")
        levels.set("a.b", "error")
        logger.warn("third")
        self.assertEqual(("first" in file.getvalue(), "second" in file.getvalue()), (False, True))
        self.assertNotIn("third", file.getvalue())
        self.assertEqual(len(events), 3)
        levels.stopService()
        logger.debug("fourth")
        self.assertIn("fourth", file.getvalue())
