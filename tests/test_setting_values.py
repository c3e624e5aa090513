"""Tests of every setting with unsuitable values: the program starts, or prints one line in words for operators."""

import os
import re

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server import tap
from govi_server.settings_loader import SETTINGS
from govi_server.tap import Options
from tests.sockets.test_endpoint_syntax import INVALID as INVALID_ENDPOINTS
from tests.sockets.test_endpoint_syntax import PYTHON

VALUES = (
    "0", "-1", "1", "1e400", "nan", "-inf", "9" * 30, "0.5", "true", "[]", "{}", "[[]]", "[0]", "['']", "['x']", "''",
    "' '", "'x'", "'/'", "'/absent/x'", "'/proc/version'", "'tcp:1'", "'tcp:abc'", "'http://'", "'http://['", "'::'",
    "'0.0.0.0/33'", r'"\u0000"', r'"a\nb"', r'"\u001b[31m"', r'"\u202e"', "'" + "x" * 5000 + "'", "1979-05-27",
    "07:32:00", "'é'", "'tcp://'", "'ipc://'", "'tcp://a:0'", "['tcp://a:0']", "['ipc://']", "['::1%x']", "['a:b']",
)  # fmt: skip
"""TOML of values that suit few settings."""


class SettingValuesTests(SynchronousTestCase):
    """The command with a file, or with options."""

    def setUp(self) -> None:
        self.file = os.memfd_create("x.toml")  # to write thousands of files takes longer than to load them
        self.addCleanup(os.close, self.file)
        self.path = f"/proc/self/fd/{self.file}"

    def error(self, toml: str, *arguments: str) -> str:
        """Make the service of a file and options; return its error without the file's name, "" without an error."""
        os.truncate(self.file, 0)
        os.pwrite(self.file, toml.encode(), 0)
        options = Options()
        sources = ("--source=", "--feed=", "--timetable=", "--gateway-url=")
        has_source = "source" in toml or any(
            argument.startswith(sources) and argument[-1] != "=" for argument in arguments
        )
        options.parseOptions(["--config", self.path, *arguments, *([] if has_source else ["--source=demo"])])
        try:
            tap.makeService(options, MemoryReactorClock())
        except SystemExit as error:
            return str(error).splitlines()[0].replace(f"{self.path}: ", "")
        return ""

    def check(self, name: str, error: str) -> None:
        """Check the form of an error about a setting."""
        if error:
            self.assertRegex(error, rf"^govi-cache: (?:--)?{re.escape(name)}(?: \(--[a-z-]+\)|\[[0-9]+\])?: ")
            self.assertNotRegex(error, PYTHON)
            self.assertNotRegex(error, r"[\x00-\x1f\x7f-\x9f\u202e]")
            self.assertLess(len(error), 1000, error[:200])

    def test_value_of_every_setting(self) -> None:
        """Each setting accepts a value of the file, or its error names it."""
        n_errors = 0
        for key in SETTINGS:
            table, _, name = key.rpartition(".")
            for value in VALUES:
                error = self.error(f"[{table}]\n{name} = {value}" if table else f"{name} = {value}")
                reported = error.split(": ")[1].split(" ")[0].partition("[")[0] if error else key
                self.check(reported, error)
                if reported != key:  # a conflict with another setting
                    self.assertIn(key, error, value)
                n_errors += bool(error)
        self.assertGreater(n_errors, len(SETTINGS) * len(VALUES) / 2)

    def test_endpoint_of_every_setting(self) -> None:
        """Each setting that is an endpoint has the errors of every invalid endpoint, in the file and as an option."""
        for key in ("listen", "admin.listen", "modules.kv55.callback"):
            table, _, name = key.rpartition(".")
            for endpoint in INVALID_ENDPOINTS:
                if "\x00" in endpoint or "\n" in endpoint:
                    continue  # not in an argument, and not in a literal string of TOML
                value = f"['{endpoint}']" if key == "listen" else f"'{endpoint}'"
                error = self.error(f"[{table}]\n{name} = {value}" if table else f"{name} = {value}")
                self.assertNotEqual(error, "", (key, endpoint))
                self.check(key, error)

    def test_value_of_every_option(self) -> None:
        """Each option accepts a value, or its error names it."""
        for key, setting in SETTINGS.items():
            if setting.option is None:
                continue
            for value in (
                "",
                " ",
                "x",
                "0",
                "-1",
                "tcp:abc",
                "a\nb",
                "\udcff",
                "/absent/x",
                "/",
                "http://[",
                "é" * 999,
            ):
                error = self.error("", f"--{setting.option.name}={value}")
                self.assertRegex(f"{error} ", rf"^ $|{key}|--{setting.option.name}\b")
                self.check(error.split(": ")[1].split(" ")[0] if error else "", error)
