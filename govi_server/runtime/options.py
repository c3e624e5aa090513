"""Errors of command lines, in one line instead of the whole help."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from twisted.python import usage

_UNKNOWN = re.compile(r"option (--?\S+) not recognized")


class Options(usage.Options):
    """Options of a program that reports an invalid command line in one line, with the nearest option.

    twistd prints the help of all options before such an error. program: its name, which precedes the error.
    """

    program: str

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line. Raises SystemExit for an invalid one."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            self._exit(str(error))

    def parseArgs(self, *args: str) -> None:
        """Reject arguments."""
        if args:
            self._exit(f"unexpected argument {args[0]!r} (--help lists all options)")

    def _exit(self, problem: str) -> NoReturn:
        if unknown := _UNKNOWN.fullmatch(problem):
            problem = f"unknown option {unknown[1]}{_suggestion(unknown[1], self.longOpt)}"
        raise SystemExit(f"{self.program}: {problem}")


def _suggestion(option: str, known: Iterable[str]) -> str:
    """Return a question about the nearest option, or else where to find all. known: in the form of getopt."""
    names = [name.rstrip("=").replace("_", "-") for name in known]
    near = get_close_matches(option.lstrip("-"), names, 1)
    return f"; did you mean --{near[0]}?" if near else " (--help lists all options)"
