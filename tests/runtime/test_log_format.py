"""Tests of govi_server.runtime.log_format."""

import io
import json
import os
import sys
from tempfile import TemporaryFile
from unittest.mock import patch

from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.log_format import is_journal, make_observer


def written(log_format: str) -> str:
    """Return what is written of a few events."""
    file = io.StringIO()
    observer = make_observer(log_format, file)
    assert observer is not None
    logger = Logger("a.b", observer=LogPublisher(observer))
    logger.info("first {n}", n=1)
    logger.warn("two\nlines \N{SNOWMAN}")
    logger.debug("")
    try:
        raise ZeroDivisionError("reason")
    except ZeroDivisionError:
        logger.failure("failed")
    return file.getvalue()


class LogFormatTests(SynchronousTestCase):
    """The forms of the log."""

    def test_json(self) -> None:
        """Each event is one JSON line, with the traceback of an exception."""
        events = [json.loads(line) for line in written("json").splitlines()]
        self.assertEqual([event["text"] for event in events], ["first 1", "two\nlines \N{SNOWMAN}", "failed"])
        self.assertEqual([event["level"] for event in events], ["info", "warn", "critical"])
        self.assertEqual({event["namespace"] for event in events}, {"a.b"})
        self.assertRegex(events[0]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertIn("ZeroDivisionError: reason", events[2]["traceback"])
        self.assertNotIn("traceback", events[0])

    def test_journal(self) -> None:
        """Each line begins with its priority, those of a traceback as well."""
        lines = written("journal").splitlines()
        self.assertEqual(lines[:4], ["<6>[a.b] first 1", "<4>[a.b] two", "<4>lines \N{SNOWMAN}", "<2>[a.b] failed"])
        self.assertTrue(all(line.startswith("<2>") for line in lines[3:]))
        self.assertIn("ZeroDivisionError: reason", lines[-1])

    def test_text(self) -> None:
        """Text has a time, the namespace and the level; without a file, twistd writes it."""
        self.assertRegex(written("text").splitlines()[0], r"^\S+ \[a\.b#info\] first 1$")
        self.assertEqual(written("text")[10:40:10], written("auto")[10:40:10])
        self.assertIsNone(make_observer("text", None))

    def test_auto(self) -> None:
        """By default the log is for the journal if stdout is the journal."""
        with TemporaryFile("w+") as file:
            status = os.fstat(file.fileno())
            journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            self.assertTrue(is_journal(file, journal))
            self.assertFalse(is_journal(file, {}))
            self.assertFalse(is_journal(file, {"JOURNAL_STREAM": "0:0"}))
            self.assertFalse(is_journal(io.StringIO(), journal))
            with patch.object(sys, "stdout", file), patch.dict(os.environ, journal):
                self.assertIsNotNone(make_observer("auto", None))
            with patch.object(sys, "stdout", file):
                self.assertIsNone(make_observer("auto", None))
