"""The targets of links, the cited sections and the named files of the documents exist."""

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.state import TABLE, Deadline

ROOT = Path(__file__).parents[1]
DOCUMENTS = (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))

MAX_README_LINES = 150

_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)|src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ANCHOR = re.compile(r'<a id="([^"]+)">')
_CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CITED = re.compile(r"docs/protocols\.md,? (?:section )?((?:[1-9]\.?)+)")
_FILE = re.compile(r"`((?:[a-z0-9_.]+/)*[a-z0-9_-]+\.(?:py|toml)|(?:[a-z0-9_]+/)+)`")


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document: those of its headings, as forges derive them, and explicit ones."""
    text = _CODE_BLOCK.sub("", path.read_text("utf-8"))
    names = (re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(text))
    return {*names, *_ANCHOR.findall(text)}


def _broken_links(path: Path) -> Iterator[str]:
    """Yield the links of a document to files or anchors that do not exist."""
    for link in map("".join, _LINK.findall(_CODE_BLOCK.sub("", path.read_text("utf-8")))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            yield f"{path.relative_to(ROOT)}: {link}"


class DocumentTests(SynchronousTestCase):
    """README and docs/."""

    def test_readme_is_short(self) -> None:
        """README.md has at most MAX_README_LINES lines."""
        self.assertLessEqual(len((ROOT / "README.md").read_text("utf-8").splitlines()), MAX_README_LINES)

    def test_link_targets_exist(self) -> None:
        """Every link to a file or an anchor of the repository has an existing target."""
        self.assertEqual([link for path in DOCUMENTS for link in _broken_links(path)], [])

    def test_cited_sections_of_protocols_exist(self) -> None:
        """Every section of docs/protocols.md that the code cites exists."""
        text = (ROOT / "docs/protocols.md").read_text("utf-8")
        sections = set(re.findall(r"^#+ ([1-9](?:\.[1-9])?) ", text, re.MULTILINE))
        sections |= set(re.findall(r"^\| ([1-9]\.[1-9]) \|", text, re.MULTILINE))
        sources = [*ROOT.glob("govi_server/**/*.py"), *ROOT.glob("tests/**/*.py")]
        cited = {number.rstrip(".") for path in sources for number in _CITED.findall(path.read_text("utf-8"))}
        self.assertTrue(cited)
        self.assertEqual(cited - sections, set())

    def test_named_files_exist(self) -> None:
        """Every file and directory that a document names exists."""
        directories = (ROOT, ROOT / "govi_server")
        named = {name for path in DOCUMENTS for name in _FILE.findall(path.read_text("utf-8"))}
        missing = {name for name in named if not any((directory / name).exists() for directory in directories)}
        self.assertEqual(missing, set())

    def test_modules_are_documented(self) -> None:
        """The architecture names every module of these packages."""
        text, root = (ROOT / "docs/architecture.md").read_text("utf-8"), ROOT / "govi_server"
        folders = (
            *("", "http", "http/caching", "sockets", "runtime", "modules", "documents", "pages", "openapi"),
            *("operations", "statistics"),
        )
        modules = {path.relative_to(root).as_posix() for folder in folders for path in (root / folder).glob("*.py")}
        missing = {name for name in modules if not name.endswith("__init__.py") and f"`{name}`" not in text}
        self.assertEqual(missing, set())

    def test_states_of_a_connection_are_documented(self) -> None:
        """The architecture's table of states has the rows of http/state.py."""
        text = (ROOT / "docs/architecture.md").read_text("utf-8")
        rows = re.findall(r"^\| ([A-Z_]+) \| .* \| (.*) \| (parsed|buffered|discarded) \|$", text, re.MULTILINE)
        names = {
            Deadline.REQUEST: "request", Deadline.KEEP_ALIVE: "keep-alive", Deadline.LINGER: "2 s",
            Deadline.CLOSE: "2 s",
        }  # fmt: skip
        expected = [
            (state.name, names[rule.deadline] if rule.deadline is not None else "none", rule.input.name.lower())
            for state, rule in TABLE.items()
        ]
        self.assertEqual(
            [(name, deadline.partition(":")[0], received) for name, deadline, received in rows], expected
        )
