"""Tests of kv78turbo.kv8_columns: the table of columns."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.kv8_columns import COLUMNS, VALUE_NAMES, parse_passtime, table_layout
from govi_server.kv78turbo.passtime import Passtime
from tests import feed

KEY = b"LIN|77|L004|1001|0|2026-01-01|3"


def values(**columns: bytes) -> bytes:
    """Return stored values, null except for these columns."""
    return b"|".join(columns.get(name, b"\\0") for name in VALUE_NAMES)


class ColumnTests(SynchronousTestCase):
    """The table of columns."""

    def test_names_and_fields_are_unique(self) -> None:
        """No two columns have the same name or field."""
        for attributes in (
            [column.name for column in COLUMNS],
            [column.field for column in COLUMNS if column.field],
        ):
            self.assertEqual(len(set(attributes)), len(attributes))

    def test_fields_are_those_of_passtime(self) -> None:
        """Each field of a column is a field of Passtime; its other fields are derived, or come from KV7."""
        derived = {"target_arrival", "expected_arrival", "target_departure", "expected_departure", "extra"}
        derived |= {"reliability", "last_heard", "provenance", "headsign"}
        names = set(Passtime.__struct_fields__)
        self.assertEqual(names - {column.field for column in COLUMNS}, derived | {"product_formula_type"})
        self.assertEqual({column.field for column in COLUMNS if column.field} - names, set())

    def test_columns_of_the_feed(self) -> None:
        """The columns are those of the feed's table, plus two that only some publishers send."""
        names = {column.name for column in COLUMNS}
        self.assertEqual(names - feed.TABLES["DATEDPASSTIME"].keys(), {"LinePublicNumber", "DestinationName"})

    def test_first_values_are_checked(self) -> None:
        """The columns that are checked on arrival come first, in the order of the check."""
        self.assertEqual(
            VALUE_NAMES[:8],
            (
                *("LastUpdateTimeStamp", "ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime"),
                *("TargetDepartureTime", "TripStopStatus", "WheelChairAccessible"),
                "JourneyStopType",
            ),
        )

    def test_columns_without_field_are_extra(self) -> None:
        """Columns without a field of their own are stored in `extra` by name if they have a value."""
        extra = [column.name for column in COLUMNS if not column.field]
        self.assertIn("MessageContent", extra)
        for name in extra:
            passtime = parse_passtime(KEY, values(TargetArrivalTime=b"01:30:00", **{name: b"a\\pb"}), "1")
            self.assertEqual(passtime.extra, ((name, "a|b"),))
        self.assertEqual(parse_passtime(KEY, values(), "1").extra, ())

    def test_layout_of_missing_columns(self) -> None:
        """A required column must be in the table; the values of others are null."""
        labels = [column.name for column in COLUMNS if column.is_required]
        layout = table_layout(tuple(labels))
        assert layout is not None
        row = [label.encode() for label in labels] + [b"\\0"]
        self.assertEqual(
            layout.values(row), tuple(name.encode() if name in labels else b"\\0" for name in VALUE_NAMES)
        )
        for label in labels:
            self.assertIsNone(table_layout(tuple(other for other in labels if other != label)))
