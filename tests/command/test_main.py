"""Tests of the command govi-cache: its subcommands, help and completion."""

import re

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from govi_server import tap
from govi_server.command.main import COMMANDS, main
from govi_server.command.options import arguments, parse
from govi_server.command.serve import ServerOptions, serve
from govi_server.runtime.version import VERSION
from govi_server.settings_loader import SETTINGS


def run(*words: str, **more: str) -> tuple[int, str]:
    """Run the command; return its exit status and its output."""
    result = CliRunner().invoke(main, words, env=more, prog_name="govi-cache")
    return result.exit_code, result.output


class MainTests(SynchronousTestCase):
    """The command and its subcommands."""

    def test_version(self) -> None:
        """--version prints the name and the version only."""
        self.assertEqual(run("--version"), (0, f"govi-cache {VERSION}\n"))

    def test_every_command_has_help(self) -> None:
        """Each command has help, which begins as the list of commands describes it."""
        status, overview = run("--help")
        self.assertEqual(status, 0)
        for name in COMMANDS:
            self.assertRegex(overview, rf"\n  {name} +[A-Z]")
            status, text = run(name, "--help")
            self.assertEqual(status, 0)
            self.assertTrue(text.startswith(f"Usage: govi-cache {name} "), text)
            self.assertIn("--help", text)

    def test_unknown_words_are_usage_errors(self) -> None:
        """An unknown command or option is an error with status 2 that names it."""
        for words in (["serv"], ["serve", "--lisen", "tcp:1"], ["check"], ["stats"], ["record", "--nonsense"]):
            status, text = run(*words)
            self.assertEqual(status, 2, words)
            self.assertIn("Error: ", text)

    def test_serve_has_the_options_of_twistd(self) -> None:
        """`govi-cache serve` has exactly the options of `twistd govi-cache`, with the same help."""
        options = tap.Options()
        expected = {name.rstrip("=") for name in options.longOpt} - {"version", "help"}
        own = {name for parameter in serve.params for name in parameter.opts if name.startswith("--")}
        self.assertEqual(own, {f"--{name}" for name in expected})
        letters = {name for parameter in serve.params for name in parameter.opts if not name.startswith("--")}
        twistd_letters = {f"-{letter}" for letter in options.shortOpt.replace(":", "")}
        self.assertEqual(letters, twistd_letters - {"-h"})
        text, twistd_text = "".join(run("serve", "--help")[1].split()), "".join(str(options).split())
        for key in SETTINGS:
            if SETTINGS[key].option is not None:
                self.assertIn("".join(tap.option_help(key).split()), text)
                self.assertIn("".join(tap.option_help(key).split()), twistd_text)

    def test_serve_passes_on_its_options(self) -> None:
        """Options of `serve` arrive in twistd's subcommand, repeated ones and empty values as well."""
        words = ["-c", "x.toml", "--listen", "tcp:1", "-l", "unix:/a b", "--admin", "", "--manhole-keys", "k"]
        values = serve.make_context("serve", [*words]).params
        config = ServerOptions()
        config.parseOptions(["--nodaemon", "govi-cache", *arguments(values)])
        expected = tap.Options()
        expected.parseOptions(words)
        self.assertEqual(config.subOptions["config"], "x.toml")
        self.assertEqual(config.subOptions.settings(), expected.settings())
        self.assertEqual(parse(values), ("x.toml", expected.settings()))

    def test_completion(self) -> None:
        """A shell can complete commands, options and sources."""
        for words, expected in (
            ("govi-cache ", set(COMMANDS)),
            ("govi-cache serve --source ", {"demo", "govi", "kv78turbo"}),
            ("govi-cache serve --gate", {"--gateway-url"}),
        ):
            line = words.split(" ")
            variables = {
                "COMP_WORDS": words,
                "COMP_CWORD": f"{len(line) - 1}",
                "_GOVI_CACHE_COMPLETE": "bash_complete",
            }
            status, text = run(**variables)
            self.assertEqual(status, 0)
            self.assertEqual({re.sub("^plain,", "", match) for match in text.split()}, expected)
