"""Tests of documents.ovapi without a server: the position of a journey, and extra columns."""

import json
from datetime import date
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from govi_server.documents.ovapi import OvapiDocuments, current_passtime
from govi_server.documents.ovapi_structs import PassDocument
from govi_server.kv78turbo.kv8_columns import COLUMNS
from govi_server.kv78turbo.passtime import Passtime
from tests.client import NOW
from tests.modules.test_kv55_feed import CODE, LiveTestCase


def passtime(order: int, status: str, **values: object) -> Passtime:
    """Return a passtime of a journey, this many minutes after NOW."""
    fields: dict[str, object] = {
        "expected_departure": NOW + order * 60,
        "journey_stop_type": "INTERMEDIATE",
        **values,
    }
    return Passtime(
        data_owner_code="LIN",
        local_service_level_code="77",
        line_planning_number="L004",
        journey_number="1001",
        fortify_order_number="0",
        operation_date=date(2026, 1, 1),
        user_stop_order_number=str(order),
        user_stop_code=f"u{order}",
        timing_point_code=CODE,
        trip_stop_status=status,
        **fields,  # type: ignore[arg-type]
    )


class WhereTests(SynchronousTestCase):
    """The current stop of a journey."""

    def test_last_reported_stop_or_next_one(self) -> None:
        """A journey is at the last stop that it has reached, by number, otherwise at the next one."""
        for statuses, order in [
            (("DRIVING", "DRIVING", "DRIVING"), 9),
            (("ARRIVED", "DRIVING", "DRIVING"), 9),
            (("PASSED", "ARRIVED", "DRIVING"), 10),
            (("PASSED", "UNKNOWN", "DRIVING"), 9),
            (("UNKNOWN", "UNKNOWN", "DRIVING"), 11),
        ]:
            stops = [passtime(order, status) for order, status in zip((9, 10, 11), statuses, strict=True)]
            current = current_passtime(reversed(stops), NOW)
            self.assertEqual(current and current.user_stop_order_number, str(order), statuses)

    def test_next_stop_is_not_hidden(self) -> None:
        """A stop whose passtime is already hidden is not the next one."""
        late = passtime(1, "DRIVING", expected_departure=NOW - 61)
        self.assertIsNone(current_passtime([late], NOW))
        self.assertEqual(current_passtime([late, passtime(2, "DRIVING")], NOW), passtime(2, "DRIVING"))

    def test_no_current_stop(self) -> None:
        """A journey without stops, one that has ended and a cancelled one have no current stop."""
        for stops in (
            [],
            [passtime(1, "PASSED"), passtime(2, "ARRIVED", journey_stop_type="LAST")],
            [passtime(1, "DRIVING"), passtime(2, "CANCEL")],
        ):
            self.assertIsNone(current_passtime(stops, NOW))


class ColumnTests(LiveTestCase):
    """KV8's columns in OVapi's JSON."""

    def members(self, **values: object) -> Any:
        """Return the JSON of a passtime."""
        return json.loads(msgspec.json.encode(OvapiDocuments(self.feed).passtime(passtime(1, "DRIVING", **values))))

    def test_extra_columns_are_members(self) -> None:
        """Each KV8 column without a field of Passtime is an optional string, in the JSON and in the schema."""
        names = [column.name for column in COLUMNS if not column.field]
        members = self.members(extra=tuple((name, "a text") for name in names))
        self.assertEqual(list(members)[-len(names) :], names)
        self.assertEqual([members[name] for name in names], ["a text"] * len(names))
        schema = msgspec.json.schema(PassDocument)["$defs"]["PassDocument"]
        for name in names:
            self.assertEqual(schema["properties"][name], {"type": "string"})
            self.assertNotIn(name, schema["required"])

    def test_unknown_columns_are_absent(self) -> None:
        """Members of unknown columns are absent."""
        members = self.members(number_of_coaches=None, line_direction=None, side_code="-")
        self.assertEqual({"NumberOfCoaches", "LineDirection", "SideCode", "MessageContent"} & set(members), set())
