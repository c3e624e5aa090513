"""Tests of the command `twistd govi-cache`: plugins, options and errors."""

import os
from tempfile import TemporaryDirectory

from twisted.application.service import IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from govi_server import tap
from govi_server.feed_proxy import tap as feed_proxy_tap
from govi_server.settings_loader import SETTINGS
from govi_server.simulator import tap as simulator_tap
from govi_server.tap import Options


class PluginTests(SynchronousTestCase):
    """Tests of the plugins that twistd finds."""

    def test_commands_are_found(self) -> None:
        """Both commands exist, with the options and services of their tap modules."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        for name, module in [("govi-cache", tap), ("govi-simulator", simulator_tap)]:
            self.assertIs(makers[name].makeService, module.makeService)
            self.assertIs(makers[name].options, module.Options)


class OptionsTests(SynchronousTestCase):
    """Tests of the options and their settings."""

    def settings(self, *arguments: str) -> dict[str, object]:
        """Return the settings of these arguments."""
        options = Options()
        options.parseOptions(arguments)
        return options.settings()

    def test_absent_options_set_nothing(self) -> None:
        """An absent option sets nothing."""
        self.assertEqual(self.settings(), {})

    def test_every_option_sets_its_setting(self) -> None:
        """Every option sets its setting."""
        self.assertEqual(
            self.settings(
                "--listen", "tcp:1", "-l", "unix:/x", "--callback", "tcp:2", "--source", "govi",
                "--gateway-url", "http://x/", "--statistics", "f", "--admin", "", "--snapshot", "s",
                "--manhole", "tcp:3", "--manhole-keys", "k", "--feed", "tcp://a:1", "--timetable", "t",
                "--workers", "2",
            ),
            {
                "listen": ["tcp:1", "unix:/x"],
                "modules.kv55.callback": "tcp:2",
                "modules.kv55.source": "govi",
                "modules.kv55.gateway_url": "http://x/",
                "statistics.file": "f",
                "admin.listen": "",
                "snapshot.file": "s",
                "manhole.listen": "tcp:3",
                "manhole.keys": "k",
                "feed.addresses": ["tcp://a:1"],
                "feed.timetable": "t",
                "workers": 2,
            },
        )  # fmt: skip

    def test_gateway_url_implies_govi(self) -> None:
        """A gateway's URL implies the source govi."""
        self.assertEqual(
            self.settings("--gateway-url", "http://x/"),
            {"modules.kv55.source": "govi", "modules.kv55.gateway_url": "http://x/"},
        )

    def test_feed_and_timetable_imply_kv78turbo(self) -> None:
        """A feed or a timetable implies the source kv78turbo, unless there is --source."""
        for arguments, settings in [
            (
                ["--feed", "tcp://a:1", "-f", "tcp://b:2"],
                {"modules.kv55.source": "kv78turbo", "feed.addresses": ["tcp://a:1", "tcp://b:2"]},
            ),
            (["--timetable", "kv7"], {"modules.kv55.source": "kv78turbo", "feed.timetable": "kv7"}),
            (["--source", "govi", "-t", "kv7"], {"modules.kv55.source": "govi", "feed.timetable": "kv7"}),
        ]:
            self.assertEqual(self.settings(*arguments), settings)

    def test_help_has_the_descriptions(self) -> None:
        """The help text of an option is the description of its setting, with the default."""
        text = " ".join(str(Options()).split())
        for setting in SETTINGS.values():
            if setting.option is not None:
                self.assertIn(f"--{setting.option.name}=", text)
                self.assertIn(setting.description, text)
        for note in (
            "[repeatable; default: tcp:8080]",
            "[implies --source kv78turbo]",
            "[default: tcp:8081:interface=127.0.0.1]",
        ):
            self.assertIn(note, text)


class ShortOptionTests(SynchronousTestCase):
    """Options of one letter."""

    def test_letters_mean_one_thing(self) -> None:
        """A letter is the same option in every program."""
        names: dict[str, set[str]] = {}
        for program in (Options(), simulator_tap.Options(), feed_proxy_tap.Options()):
            for letter in program.shortOpt.replace(":", ""):
                names.setdefault(letter, set()).add(program.synonyms[letter])
        self.assertGreater(len(names), 5)
        self.assertEqual({letter: sorted(options) for letter, options in names.items() if len(options) > 1}, {})


class ErrorTests(SynchronousTestCase):
    """Tests of configurations with which the command exits."""

    def test_all_problems_are_reported(self) -> None:
        """Every problem of the configuration has a line of its own, those of options as well."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "config.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[cache]\nfresh = -1\nflihgts = 3\n")
        options = Options()
        options.parseOptions(["--config", path, "--listen", "9000", "--source", "demo"])
        error = self.assertRaises(SystemExit, tap.makeService, options, MemoryReactorClock())
        starts = (
            f"{path}: cache.fresh: invalid",
            f"{path}: cache.flihgts: unknown setting",
            "--listen: invalid endpoint",
        )
        for line, start in zip(str(error).splitlines(), starts, strict=True):
            self.assertTrue(line.startswith(f"govi-cache: {start}"), line)

    def test_invalid_command_line_is_reported_in_one_line(self) -> None:
        """The error is one line, with the nearest option if one is near."""
        for arguments, expected in [
            (["--lisen", "tcp:1"], "unknown option --lisen; did you mean --listen?"),
            (["--bogus"], "unknown option --bogus (--help lists all options)"),
            (["-x"], "unknown option -x (--help lists all options)"),
            (["--listen"], "option --listen requires argument"),
            (["tcp:8080"], "unexpected argument 'tcp:8080' (--help lists all options)"),
        ]:
            error = self.assertRaises(SystemExit, Options().parseOptions, arguments)
            self.assertEqual(str(error), f"govi-cache: {expected}")

    def test_unusable_configuration_is_reported_in_one_line(self) -> None:
        """The error is one line; it names the command, the file and the setting, or the option."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "config.toml")
        for toml, arguments, expected in [
            ("cache.fresh = -1", [], f"govi-cache: {path}: cache.fresh: invalid value -1 (expected "),
            ("", ["--listen", "foo:1"], "govi-cache: listen (--listen): invalid endpoint 'foo:1': "),
            ("", ["--listen", "9000"], "govi-cache: --listen: invalid endpoint '9000'; did you mean 'tcp:9000'?"),
            (
                "",
                ["--source", "magic"],
                "govi-cache: --source: invalid value 'magic' (expected demo, govi or kv78turbo)",
            ),
            ("", ["--feed", "foo"], "govi-cache: --feed: invalid feed address 'foo'; did you mean 'tcp://foo'?"),
            (
                "",
                ["--feed", "tcp://foo"],
                "govi-cache: feed.addresses (--feed): invalid feed address 'tcp://foo' (expected tcp://host:port)",
            ),
            (
                "",
                ["--manhole", "tcp:1"],
                "govi-cache: --manhole: requires manhole.keys (--manhole-keys), the file of ",
            ),
            ("[admin]\nprobe = 'x'", [], f"govi-cache: {path}: admin.probe: invalid TimingPointCode 'x' (expected "),
        ]:
            with open(path, "w", encoding="utf-8") as file:
                file.write(toml)
            options = Options()
            source = [] if {"--source", "--feed"} & set(arguments) else ["--source", "demo"]
            options.parseOptions(["--config", path, *arguments, *source])
            with self.assertRaises(SystemExit) as caught:
                tap.makeService(options, MemoryReactorClock())
            line, *others = str(caught.exception).splitlines()
            self.assertIn(expected, line)
            self.assertTrue(all("no source is chosen" in other for other in others), others)
