"""The lines that KV7 has planned on each operating date."""

from collections import Counter
from collections.abc import Iterator
from datetime import date

from govi_server.kv78turbo.kv7_reader import Group

_NO_LINES: Counter[str] = Counter()


class LinesByDate:
    """Counts the groups of each line on each operating date."""

    def __init__(self) -> None:
        self._dates_of: dict[Group, frozenset[date]] = {}
        """The dates on which each group is counted."""
        self._groups: dict[tuple[str, date], Counter[str]] = {}
        """The number of groups of each LinePlanningNumber, by DataOwnerCode and date."""

    def set_dates(self, group: Group, dates: frozenset[date]) -> Iterator[tuple[date, int, int]]:
        """Set the dates of a group; yield those on which its line is new, or not planned any more.

        With each date the numbers of the operator's lines before and after.
        """
        previous = self._dates_of.pop(group, frozenset())
        if dates:
            self._dates_of[group] = dates
        operator, _, line = group.decode().split("|")
        for day in dates - previous:
            lines = self._groups.setdefault((operator, day), Counter())
            lines[line] += 1
            if lines[line] == 1:
                yield day, len(lines) - 1, len(lines)
        for day in previous - dates:
            lines = self._groups[operator, day]
            lines[line] -= 1
            if not lines[line]:
                del lines[line]
                yield day, len(lines) + 1, len(lines)
            if not lines:
                del self._groups[operator, day]

    def has(self, operator: str, line: str, day: date) -> bool:
        """Return whether a line is planned on a date."""
        return line in self._groups.get((operator, day), _NO_LINES)

    def number(self, operator: str, day: date) -> int:
        """Return the number of an operator's lines that are planned on a date."""
        return len(self._groups.get((operator, day), _NO_LINES))
