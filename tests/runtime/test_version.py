"""Tests of --version of all commands."""

import io
from contextlib import redirect_stdout

from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from govi_server import tap
from govi_server.runtime.version import VERSION
from govi_server.simulator import tap as simulator


class VersionTests(SynchronousTestCase):
    """The option --version."""

    def test_version_names_the_program(self) -> None:
        """Each command prints its name and version, and exits with status 0."""
        for program, options in (
            ("govi-cache", tap.Options),
            ("govi-simulator", simulator.Options),
        ):
            output = io.StringIO()
            with redirect_stdout(output):
                error = self.assertRaises(SystemExit, self.parse, options)
            self.assertFalse(error.code)
            self.assertTrue(output.getvalue().startswith(f"{program} {VERSION}\n"), output.getvalue())

    def parse(self, options: type[Options]) -> None:
        options().parseOptions(["--version"])
