"""GET /siri/stop-monitoring.json?MonitoringRef=<TimingPointCode>: a stop's board as SIRI Lite 2.0.

The names are those of SIRI 2.0 (CEN/TS 15531-3); texts are arrays of {"value": ...}, references are {"value": ...}.
What is wrong is said in the delivery's ErrorCondition, with the HTTP status that goes with it.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.contract import (
    FLAG,
    NUMBER,
    TEXT,
    Answer,
    BadQuery,
    Example,
    Json,
    Parameter,
    Path,
    Text,
    Whole,
    arrays,
    objects,
    said_in,
)
from govi_server.departures.times import DAY, HOUR, MINUTE, local_timestamp
from govi_server.environ import Environ
from govi_server.interfaces import IDeclared, IReadyModule
from govi_server.kv78turbo.boards import StopBoard
from govi_server.kv78turbo.feed import Condition, Feed
from govi_server.kv78turbo.passes import Pass
from govi_server.modules.declared import LIVE
from govi_server.modules.kept import Kept
from govi_server.modules.live import TIMING_POINT_CODE, LiveHandler, answer, condition_of
from govi_server.ready import Ready
from govi_server.request_handler import RequestHandler
from govi_server.response import represent

PATH = "/siri/stop-monitoring.json"

CONTENT_TYPE = "application/json"

HORIZON = 2 * HOUR
"""Seconds that are looked ahead if nothing is said: as /kv55 does."""

PUNCTUAL = 60
"""Seconds by which who is called on time may be late or early."""

_DURATION = "P(?=[0-9T])(?:([0-9]{1,3})D)?(?:T(?=[0-9])(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?(?:([0-9]{1,5})S)?)?"


class Duration:
    """An ISO 8601 duration of days, hours, minutes and seconds, such as PT30M; one above a day counts as a day."""

    schema: Json = {"type": "string", "pattern": f"^(?:{_DURATION})$"}

    def read(self, text: str) -> int | None:
        """Read it as seconds; None for what is none."""
        found = re.fullmatch(_DURATION, text)
        if found is None:
            return None
        return min(
            sum(int(n or 0) * size for n, size in zip(found.groups(), (DAY, HOUR, MINUTE, 1), strict=True)), DAY
        )

    def __str__(self) -> str:
        return "an ISO 8601 duration, such as PT30M"


STOP = Parameter("MonitoringRef", TIMING_POINT_CODE, "The stop: a TimingPointCode.", "57330430", required=True)
MOST = Parameter("MaximumStopVisits", Whole("visits", 1, 9999), "The most visits that are wanted.", 5)
LINE = Parameter("LineRef", Text(40, least=1), "Only this line, as LineRef tells it, or by its LinePublicNumber.")
PREVIEW = Parameter(
    "PreviewInterval", Duration(), "How far to look ahead: two hours if nothing is said, a day at most.", "PT30M"
)
PARAMETERS = (STOP, MOST, LINE, PREVIEW)

EXAMPLES = (
    Example("The next visit", f"{PATH}?MonitoringRef=57330430&MaximumStopVisits=1"),
    Example("A stop that nobody knows", f"{PATH}?MonitoringRef=1", status=404),
    Example("A parameter that is missing", PATH, status=400),
)

# Which SIRI error says why there is no board.
_ERRORS: dict[Condition, tuple[str, str]] = {
    "unknown": ("InvalidDataReferencesError", "Unknown MonitoringRef"),
    "old": ("NoInfoForTopicError", "What is known of this stop is too old"),
    "down": ("ServiceNotAvailableError", "The feed tells nothing"),
}

_ERROR_NAMES = ("OtherError", *(name for name, _ in _ERRORS.values()))
_ERROR = objects({"ErrorText": TEXT})
_REF = objects({"value": TEXT})
_TEXTS = arrays(_REF)
_CALL = objects(
    {
        "StopPointRef": _REF, "Order": NUMBER, "StopPointName": _TEXTS, "VehicleAtStop": FLAG,
        "DestinationDisplay": _TEXTS, "AimedArrivalTime": TEXT, "ExpectedArrivalTime": TEXT, "ArrivalStatus": TEXT,
        "ArrivalPlatformName": _REF, "AimedDepartureTime": TEXT, "ExpectedDepartureTime": TEXT,
        "DepartureStatus": TEXT, "DeparturePlatformName": _REF,
    },
    ("StopPointRef", "Order", "StopPointName", "VehicleAtStop", "DestinationDisplay"),
)  # fmt: skip
_JOURNEY = objects(
    {
        "LineRef": _REF, "DirectionRef": _REF, "JourneyPatternRef": _REF, "VehicleMode": arrays(TEXT),
        "FramedVehicleJourneyRef": objects({"DataFrameRef": _REF, "DatedVehicleJourneyRef": TEXT}),
        "PublishedLineName": _TEXTS, "OperatorRef": _REF, "DestinationRef": _REF, "DestinationName": _TEXTS,
        "Monitored": FLAG, "MonitoredCall": _CALL,
    },
    ("LineRef", "FramedVehicleJourneyRef", "PublishedLineName", "OperatorRef", "DestinationName", "Monitored",
     "MonitoredCall"),
)  # fmt: skip
_VISIT = objects(
    {
        "RecordedAtTime": TEXT,
        "ItemIdentifier": TEXT,
        "MonitoringRef": _REF,
        "MonitoredVehicleJourney": _JOURNEY,
    }
)
_DELIVERY = objects(
    {
        "ResponseTimestamp": TEXT, "Version": TEXT, "Status": FLAG, "MonitoringRef": arrays(_REF),
        "MonitoredStopVisit": arrays(_VISIT),
        "ErrorCondition": objects(dict.fromkeys(_ERROR_NAMES, _ERROR), ()),
    },
    ("ResponseTimestamp", "Version", "Status", "MonitoredStopVisit"),
)  # fmt: skip
SCHEMA = objects(
    {
        "Siri": objects(
            {
                "ServiceDelivery": objects(
                    {
                        "ResponseTimestamp": TEXT,
                        "ProducerRef": _REF,
                        "StopMonitoringDelivery": {**arrays(_DELIVERY), "minItems": 1, "maxItems": 1},
                    }
                )
            }
        )
    }
)
"""What is answered, whatever the status."""


class Asked(NamedTuple):
    """What is asked for: all that an answer depends on, beside what is known of the stop."""

    code: str
    most: int | None
    line: str | None
    preview: int | None
    compressed: bool


def read_asked(env: Environ) -> Asked:
    """Read what a request asks for. Raises BadQuery."""
    said = said_in(env.get("query_string", ""))
    return Asked(STOP.of(said), MOST.of(said), LINE.of(said), PREVIEW.of(said), prefers_gzip(env))


@implementer(IReadyModule, IDeclared)
class Siri(Service):
    """Answers under /siri."""

    name = "siri"

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.kept = Kept(feed.clock)

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "SiriHandler":
        """Make the handler of one request."""
        return SiriHandler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], Ready | None] | None:
        """Give what answers with a stop's visits for as long as they are kept."""
        try:
            return partial(self.at_hand, read_asked(env)) if env["path_info"] == PATH else None
        except BadQuery:
            return None

    def at_hand(self, asked: Asked) -> Ready | None:
        """Give the answer that is kept, if it holds."""
        return self.kept.get(asked, self.version(asked))

    def version(self, asked: Asked) -> object:
        """Give what is another thing when there may be another answer."""
        return self.feed.state, self.feed.boards.version(asked.code)

    def contract(self) -> list[Path]:
        """Declare the one path."""
        about = ("Cache-Control", "Feed-State")
        answers = (
            Answer(
                200,
                "The stop's next visits, and none if nothing comes.",
                CONTENT_TYPE,
                SCHEMA,
                LIVE,
                ("Age",),
            ),
            Answer(400, "A parameter is missing or wrong; ErrorCondition names it.", CONTENT_TYPE, SCHEMA, about[:1]),
            Answer(404, "There is no such stop (InvalidDataReferencesError).", CONTENT_TYPE, SCHEMA, about),
            Answer(503, "Nothing recent is known.", CONTENT_TYPE, SCHEMA, (*about, "Retry-After")),
        )
        return [
            Path(
                PATH,
                "The next visits at a stop, as SIRI Lite 2.0",
                answers,
                PARAMETERS,
                "Moments have their offset. What is not known is left out: a departure without ExpectedDepartureTime "
                "is one whose delay nobody knows, or that is cancelled (DepartureStatus).",
                EXAMPLES,
            )
        ]

    def delivery(self, visits: list[dict[str, Any]], error: tuple[str, str] | None = None) -> bytes:
        """Write the whole answer. error: the name of a SIRI error, and its text."""
        now = local_timestamp(self.feed.clock.seconds())
        delivery: dict[str, Any] = {
            "ResponseTimestamp": now,
            "Version": "2.0",
            "Status": error is None,
            "MonitoredStopVisit": visits,
        }
        if error is not None:
            delivery["ErrorCondition"] = {error[0]: {"ErrorText": error[1]}}
        service = {
            "ResponseTimestamp": now,
            "ProducerRef": _ref("govi-cache"),
            "StopMonitoringDelivery": [delivery],
        }
        return msgspec.json.encode({"Siri": {"ServiceDelivery": service}})

    def visits(self, board: StopBoard, line: str | None, most: int | None) -> list[dict[str, Any]]:
        """Describe the passes of a board, those of one line if it is told."""
        wanted = [
            one
            for one in board.passes
            if line is None or line in (_line(one), one.line_planning_number, self.feed.timetable.public_number(one))
        ]
        return [self._visit(one) for one in wanted[:most]]

    def _visit(self, one: Pass) -> dict[str, Any]:
        timetable = self.feed.timetable
        line = timetable.lines.get((one.data_owner_code, one.line_planning_number))
        mode = line.transport_type if line is not None else None
        journey: dict[str, Any] = {
            "LineRef": _ref(_line(one)),
            "DirectionRef": _ref(one.line_direction),
            "FramedVehicleJourneyRef": {
                "DataFrameRef": _ref(one.operation_date.isoformat()),
                "DatedVehicleJourneyRef": one.journey.replace("_", ":"),
            },
            "JourneyPatternRef": _ref(one.journey_pattern_code),
            "VehicleMode": [mode.lower()] if mode else None,
            "PublishedLineName": _texts(timetable.public_number(one)),
            "OperatorRef": _ref(one.operator_code or one.data_owner_code),
            "DestinationRef": _ref(one.destination_code),
            "DestinationName": _texts(timetable.destination(one)),
            # What is only planned may be late, and nobody would know: it has no expected times.
            "Monitored": _is_monitored(one),
            "MonitoredCall": self._call(one),
        }
        return {
            "RecordedAtTime": local_timestamp(one.last_update or self.feed.clock.seconds()),
            "ItemIdentifier": f"{one.journey}_{one.operation_date}_{one.user_stop_order_number}".replace("_", ":"),
            "MonitoringRef": _ref(one.timing_point_code),
            "MonitoredVehicleJourney": _said(journey),
        }

    def _call(self, one: Pass) -> dict[str, Any]:
        point = self.feed.timetable.timing_points.get(one.timing_point_code)
        platform = None if one.side_code in (None, "-", "Left", "Right") else _ref(one.side_code)
        expected = _is_monitored(one) and one.trip_stop_status != "CANCEL"
        call: dict[str, Any] = {
            "StopPointRef": _ref(one.timing_point_code),
            "Order": int(one.user_stop_order_number),
            "StopPointName": _texts((point and point.name) or one.timing_point_code),
            "VehicleAtStop": one.trip_stop_status == "ARRIVED",
            "DestinationDisplay": _texts(self.feed.timetable.destination(one)),
        }
        for what, aimed, told in (
            ("Arrival", one.target_arrival, one.expected_arrival),
            ("Departure", one.target_departure, one.expected_departure),
        ):
            if aimed is None and told is None:
                continue
            call[f"Aimed{what}Time"] = None if aimed is None else local_timestamp(aimed)
            call[f"Expected{what}Time"] = None if told is None or not expected else local_timestamp(told)
            call[f"{what}Status"] = _status(one, what, aimed, told)
            call[f"{what}PlatformName"] = platform
        return _said(call)


def _status(one: Pass, what: str, aimed: float | None, told: float | None) -> str:
    """Give SIRI's CallStatus."""
    status = one.trip_stop_status
    if status == "CANCEL":
        return "cancelled"
    if status == "PASSED":
        return "departed" if what == "Departure" else "arrived"
    if status == "ARRIVED" and what == "Arrival":
        return "arrived"
    if not _is_monitored(one) or aimed is None or told is None:
        return "noReport"
    late = told - aimed
    return "delayed" if late >= PUNCTUAL else "early" if late <= -PUNCTUAL else "onTime"


def _is_monitored(one: Pass) -> bool:
    return one.trip_stop_status not in ("PLANNED", "UNKNOWN")


def _line(one: Pass) -> str:
    return f"{one.data_owner_code}:{one.line_planning_number}"


def _ref(text: str | None) -> dict[str, str] | None:
    return None if text is None else {"value": text}


def _texts(text: str) -> list[dict[str, str]]:
    return [{"value": text}]


def _said(members: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known."""
    return {name: value for name, value in members.items() if value is not None}


class SiriHandler(LiveHandler):
    """Answers one question about one stop."""

    def __init__(self, module: Siri, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self.feed = module.feed
        self._module = module

    async def get(self) -> None:
        """Send the stop's visits, or an ErrorCondition."""
        if self.env["path_info"] != PATH:
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        try:
            asked = read_asked(self.env)
        except BadQuery as error:
            self._send_error("400 Bad Request", {"Cache-Control": "no-store"}, ("OtherError", str(error)))
            return
        module, feed = self._module, self.feed
        ready = module.at_hand(asked)
        if ready is not None:
            self.mark("lookup")
            self.send_representation(ready)
            return
        board = feed.boards.board(asked.code, HORIZON if asked.preview is None else asked.preview)
        condition = feed.condition(board)
        self.mark("lookup")
        if condition[0] not in ("fresh", "stale"):
            reason = condition_of(feed, [board])
            self._send_error(*self.without(reason), _ERRORS[reason])
            return
        body = module.delivery(module.visits(board, asked.line, asked.most))
        made = represent(body, CONTENT_TYPE, asked.compressed)

        def say(max_age: int) -> Ready:
            return answer(feed, made, [condition], max_age=max_age)

        self.send_representation(module.kept.put(asked, module.version(asked), say))

    def _send_error(self, status: str, headers: dict[str, str], error: tuple[str, str]) -> None:
        self.mark("lookup")
        body = self._module.delivery([], error)
        self.mark("render")
        self.send_response(body, status, {**headers, "Content-Type": CONTENT_TYPE})
