"""Tests of `govi-cache check` and `govi-cache config`."""

import tempfile
import tomllib
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.command.locations import locate
from govi_server.settings import Config
from tests import configuration
from tests.command.test_main import run

FAULTY = """\
# comment
lisen = ["tcp:80"]

listen = [
  "tcp:99999",
  # comment
  "tcp:8080",
]
[cache]
frehs = 30
stale = 10   # below fresh
[modules.kv55]
source = "gvoi"
callback = "tcp:x"
[modules."a b"]
x = 1
[admin]
probe = "x"
listen = "8081"
[feed]
addresses = ["tcp://foo"]
[gateway]
answer = "ten"
"""

FAULTS = """\
--snapshot: invalid value '\\x07' (expected a string without control characters)
{path}:2: lisen: unknown setting; did you mean 'listen'?
{path}:4: listen[0]: invalid endpoint 'tcp:99999': invalid port '99999' (expected a port from 0 to 65535)
{path}:10: cache.frehs: unknown setting; did you mean 'cache.fresh'?
{path}:11: cache.stale: invalid value 10 (expected at least cache.fresh, 60)
{path}:13: modules.kv55.source: invalid value 'gvoi' (expected demo, govi or kv78turbo); did you mean 'govi'?
{path}:14: modules.kv55.callback: invalid endpoint 'tcp:x': invalid port 'x' (expected a port from 0 to 65535)
{path}:15: modules.'a b': invalid name (expected letters, digits and hyphens)
{path}:18: admin.probe: invalid TimingPointCode 'x' (expected 1 to 10 digits)
{path}:19: admin.listen: invalid endpoint '8081'; did you mean 'tcp:8081'?
{path}:21: feed.addresses[0]: invalid feed address 'tcp://foo' (expected tcp://host:port)
{path}:23: gateway.answer: invalid value 'ten' (expected a number of seconds above 0, at most 86400)
"""


STATEMENTS = ("", "# [x]", "a = 1", "b = [\n1,\n\n2]", 'c = """\n# x\nd = 1\n"""', "[t]")


class FileTestCase(SynchronousTestCase):
    """A test case that has a configuration file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "govi-cache.toml")


class CheckTests(FileTestCase):
    """`govi-cache check`."""

    def check(self, toml: str, *options: str) -> tuple[int, str]:
        """Check a file; return the exit status and the output, with {path} for the path."""
        self.path.write_bytes(toml.encode())
        status, text = run("check", str(self.path), *options)
        return status, text.replace(f"{self.path}", "{path}")

    def test_all_faults_are_reported_at_once(self) -> None:
        """All faults of a file are reported in the order of their lines, after those of options."""
        self.assertEqual(self.check(FAULTY, "--snapshot", "\x07"), (1, FAULTS))
        self.assertEqual(self.check(FAULTY.replace("\n", "\r\n"), "--snapshot", "\x07"), (1, FAULTS))

    def test_valid_files(self) -> None:
        """A valid file is reported as such."""
        self.assertEqual(self.check("[modules.kv55]\nsource = 'demo'\n"), (0, "{path}: valid\n"))
        self.assertEqual(self.check(configuration.toml_file(), "--feed", "tcp://x:1"), (0, "{path}: valid\n"))

    def test_missing_source(self) -> None:
        """A missing source is reported at its module; an option may choose it."""
        status, text = self.check("[cache]\n\n[modules.kv55]\n")
        self.assertEqual((status, text.partition(" no source")[0]), (1, "{path}:3: modules.kv55.source:"))
        self.assertEqual(self.check("[cache]\n\n[modules.kv55]\n", "--source", "govi")[0], 0)

    def test_problems_of_services(self) -> None:
        """A problem that only the services know is reported, too."""
        status, text = self.check("\n[modules.tpc]\nsource = 'kv78turbo'")
        self.assertEqual((status, text), (1, "{path}:2: modules.tpc: invalid name (/tpc is a path of the program)\n"))
        absent = f"ssl:0:privateKey={self.path}.key"
        status, text = self.check("[modules.kv55]\nsource = 'demo'", "--listen", absent)
        self.assertEqual(status, 1)
        self.assertIn("cannot read {path}.key: No such file or directory", text)

    def test_sockets_of_a_socket_unit(self) -> None:
        """An endpoint on a socket that only the service has is valid, unless its arguments are not."""
        toml = "[modules.kv55]\nsource = 'demo'"
        for endpoint in ("systemd:domain=INET:index=0", "haproxy:systemd:name=govi-cache.socket"):
            self.assertEqual(self.check(toml, "--listen", endpoint), (0, "{path}: valid\n"))
        status, text = self.check(toml, "--listen", "systemd:inedx=0")
        self.assertEqual(
            (status, text),
            (1, "--listen: invalid endpoint 'systemd:inedx=0': unknown argument 'inedx' (expected index or name)\n"),
        )

    def test_unreadable_files(self) -> None:
        """A file that is no TOML is reported with the line; one that is absent, with the reason."""
        self.assertEqual(
            self.check("a = [1\nb = 2\n"), (1, "{path}:2: invalid TOML: Unclosed array (at line 2, column 1)\n")
        )
        status, text = run("check", "/nonexistent/x.toml")
        self.assertEqual((status, text), (1, "cannot read /nonexistent/x.toml: No such file or directory\n"))

    @given(
        st.lists(
            st.sampled_from(["", "# [x]", "a = 1", "b = [\n1,\n\n2]", 'c = """\n# x\nd = 1\n"""', "[t]"]), unique=True
        )
    )
    def test_line_of_every_key(self, statements: list[str]) -> None:
        """The line of a key is that on which its statement begins."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "x.toml")
        path.write_text("\n".join(statements))
        expected, number, table = {}, 1, ""
        for statement in statements:
            if statement == "[t]":
                expected["t"], table = number, "t."
            elif statement[:1] in ("a", "b", "c"):
                expected[f"{table}{statement[0]}"] = number
            number += statement.count("\n") + 1
        self.assertEqual(locate(str(path)).lines, expected)


class ConfigTests(FileTestCase):
    """`govi-cache config`."""

    def test_values_in_force(self) -> None:
        """The output is TOML with all values in force, each with where it is set."""
        self.path.write_text('listen = [\n"tcp:1"]\n[cache]\n\nfresh = 20\n[modules.a]\nsource = "kv78turbo"\n')
        status, text = run("config", "--config", str(self.path), "--snapshot", "s", "--timetable", "é")
        self.assertEqual(status, 0)
        config = msgspec.convert(tomllib.loads(text), Config)
        self.assertEqual((config.listen, config.cache.fresh, config.snapshot.file), (("tcp:1",), 20, "s"))
        self.assertEqual(config.feed.timetable, "é")
        for line in (
            f'listen = ["tcp:1"]  # {self.path}:1',
            f"fresh = 20.0  # {self.path}:5",
            "stale = 300.0  # default",
            f'source = "kv78turbo"  # {self.path}:7',
            'file = "s"  # --snapshot',
        ):
            self.assertIn(f"\n{line}\n", f"\n{text}")

    def test_implied_source(self) -> None:
        """A source that another option implies is marked as implied; --changed omits the defaults."""
        status, text = run("config", "--changed", "--feed", "tcp://x:1")
        self.assertEqual(status, 0)
        self.assertEqual(
            text,
            '\n[modules.kv55]\nsource = "kv78turbo"  # implied by --feed\n'
            '\n[feed]\naddresses = ["tcp://x:1"]  # --feed\n',
        )

    def test_changed_omits_defaults_of_a_copied_file(self) -> None:
        """Of a file with every setting, --changed prints those whose values differ from the defaults."""
        self.path.write_text(configuration.toml_file().replace('#source = "demo"', 'source = "demo"'))
        status, text = run(
            "config", "--changed", "--config", str(self.path), "--admin", "tcp:8081:interface=127.0.0.1"
        )
        self.assertEqual(
            (status, [line.partition("  #")[0] for line in text.split("\n")]),
            (0, ["", "[modules.kv55]", 'source = "demo"', ""]),
        )

    def test_passwords_are_not_printed(self) -> None:
        """The password in a URL is not printed."""
        text = run("config", "--source", "govi", "--share", "redis://u:secret@127.0.0.1:6379/0", "--changed")[1]
        self.assertIn('"redis://u:***@127.0.0.1:6379/0"', text)

    def test_invalid_configuration(self) -> None:
        """An invalid configuration is reported, each problem in one line."""
        status, text = run("config", "--source", "demo", "--listen", "9000")
        self.assertEqual(
            (status, text), (1, "govi-cache: --listen: invalid endpoint '9000'; did you mean 'tcp:9000'?\n")
        )
