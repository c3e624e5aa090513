"""What /kv55 and OVapi's paths declare: apart from the modules, for it is as long as they are."""

from typing import get_args

from govi_server.departures.display import RowState, StopState
from govi_server.http.parameters import Json, Parameter, String
from govi_server.modules.feed_handler import (
    DRIS_55,
    FEED_HEADERS,
    INVALID_PARAMETER,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
)
from govi_server.modules.query_parameters import CODES, PICKED, TIMING_POINT_CODE
from govi_server.openapi.description import Example, Operation, ResponseSpec
from govi_server.openapi.schema import (
    DEGREES_OR_NULL,
    FLAG,
    MOMENT,
    MOMENT_OR_NULL,
    NOTHING,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    arrays,
    mappings,
    objects,
    words,
)

XML = "text/xml"
JSON = "application/json"


_CODE = Parameter("TimingPointCode", TIMING_POINT_CODE, "A stop.", "57330430", "path", True)
_LISTED = String(least=1)


def kv55_gateway(name: str) -> list[Operation]:
    """Declare a module that answers from a gateway."""
    about = ("Age", "Cache-Control", "Cache-Status", "ETag", "Last-Modified")
    failed = ("Cache-Control", "Cache-Status", "Retry-After")
    answers = (
        ResponseSpec(200, "The board, a DRIS_55 document.", XML, TEXT, about),
        ResponseSpec(404, "This is no TimingPointCode; DRIS_55 with Error.", XML, TEXT, ("Cache-Control",)),
        ResponseSpec(502, "The gateway's answer cannot be read; DRIS_55 with Error.", XML, TEXT, failed),
        ResponseSpec(503, "Too many questions are on their way; DRIS_55 with Error.", XML, TEXT, failed),
        ResponseSpec(504, "The gateway gave no answer; DRIS_55 with Error.", XML, TEXT, failed),
    )
    examples = (
        Example("A board", f"/{name}/57330430"),
        Example("No TimingPointCode", f"/{name}/station", status=404),
    )
    template, summary = f"/{name}/{{TimingPointCode}}", "The departures of a stop, as DRIS_55"
    return [Operation(template, summary, answers, (_CODE,), DRIS_55, examples)]


def kv55_feed(name: str) -> list[Operation]:
    """Declare a module that answers /kv55 from the live feed."""
    answers = (
        ResponseSpec(
            200, "The boards of the stops that are known, a DRIS_55 document.", XML, TEXT, FEED_HEADERS, ("Age",)
        ),
        INVALID_PARAMETER,
        ResponseSpec(
            404,
            "None of these stops is known; DRIS_55 with Error.",
            XML,
            TEXT,
            ("Cache-Control",),
            NOT_FOUND_HEADERS[1:],
        ),
        ResponseSpec(503, "Nothing recent is known; DRIS_55 with Error.", XML, TEXT, UNAVAILABLE_HEADERS),
    )
    parameters = (CODES, *PICKED)
    examples = (
        Example("A board", f"/{name}/57330430?limit=1"),
        Example("A stop that nobody knows", f"/{name}/1", status=404),
    )
    template, summary = f"/{name}/{{TimingPointCodes}}", "The departures of stops, as DRIS_55"
    return [Operation(template, summary, answers, parameters, DRIS_55, examples)]


_DEPARTURE: dict[str, Json] = {
    "line": TEXT,
    "destination": TEXT,
    "platform": TEXT_OR_NULL,
    "time": TEXT,
    "minutes": NUMBER_OR_NULL,
    "planned": MOMENT,
    "expected": MOMENT_OR_NULL,
    "state": words(get_args(RowState)),
    "words": TEXT,
    "color": TEXT_OR_NULL,
    "text_color": TEXT_OR_NULL,
    "note": TEXT,
    "stop": TEXT,
}
SIGN = objects(
    {
        "stops": arrays(
            objects(
                {
                    "code": TEXT,
                    "name": TEXT,
                    "town": TEXT,
                    "state": words(get_args(StopState)),
                    "words": TEXT,
                    "as_of": MOMENT_OR_NULL,
                    "messages": arrays(TEXT),
                    "departures": arrays(objects(_DEPARTURE, ())),  # those that fields= names, all without it
                }
            )
        )
    }
)
"""A board as JSON."""

_SHOWN: Json = {
    "anyOf": [
        {**TEXT, "contentMediaType": JSON, "contentSchema": SIGN},
        {**TEXT, "contentMediaType": "text/html"},
    ]
}
EVENT: Json = {
    "anyOf": [
        objects({"event": words(["board"]), "id": TEXT, "data": _SHOWN}),
        objects({"event": words(["beat", "bye"]), "data": NOTHING}),
    ]
}
"""One event of a stream. OpenAPI 3.1 has no words for that; those who read it take the schema to be of each."""

STOP = {
    "Longitude": DEGREES_OR_NULL,
    "Latitude": DEGREES_OR_NULL,
    "TimingPointTown": TEXT,
    "TimingPointName": TEXT,
    "TimingPointCode": TEXT,
    "StopAreaCode": TEXT_OR_NULL,
}
"""What is told of a stop, as schemas."""

# What OVapi's JSON is made of. Numbers that are none stay texts, so some values may be either.
_NUMBER_OR_TEXT: Json = {"type": ["integer", "string"]}
_STOP = objects(STOP)
_PASS: Json = {
    **objects(
    {
        **dict.fromkeys(
            (
                *("DestinationName50", "DataOwnerCode", "OperatorCode", "OperationDate", "TimingPointCode"),
                *("WheelChairAccessible", "LinePublicNumber", "ExpectedDepartureTime", "ProductFormulaType"),
                *("TimingPointName", "LinePlanningNumber", "TimingPointTown", "TripStopStatus", "UserStopCode"),
                *("TimingPointDataOwnerCode", "SideCode"),
                *("JourneyStopType", "TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime"),
            ),
            TEXT,
        ),
        **dict.fromkeys(
            (
                *("FortifyOrderNumber", "JourneyNumber", "UserStopOrderNumber", "NumberOfCoaches"),
                *("JourneyPatternCode", "LocalServiceLevelCode", "LineDirection"),
            ),
            _NUMBER_OR_TEXT,
        ),
        **dict.fromkeys(("LineName", "LastUpdateTimeStamp", "DestinationCode", "TransportType"), TEXT_OR_NULL),
        "IsTimingStop": FLAG,
        "Latitude": DEGREES_OR_NULL,
        "Longitude": DEGREES_OR_NULL,
    },
    # Times are there where any is; of a number of three it is as for the times.
    ("DestinationName50", "DataOwnerCode", "JourneyNumber", "LinePublicNumber", "LinePlanningNumber", "OperationDate",
     "TimingPointCode", "TimingPointName", "TripStopStatus", "Latitude", "Longitude", "LastUpdateTimeStamp"),
),
    "additionalProperties": TEXT,  # what an operator remarks
}  # fmt: skip
_MESSAGES = mappings({"type": "object", "additionalProperties": TEXT})
_BOARD = objects({"Stop": _STOP, "Passes": mappings(_PASS), "GeneralMessages": _MESSAGES})
_LINE = objects(
    {
        "LineWheelchairAccessible": TEXT,
        "TransportType": TEXT_OR_NULL,
        "DestinationName50": TEXT_OR_NULL,
        "DataOwnerCode": TEXT,
        "DestinationCode": TEXT_OR_NULL,
        "LinePublicNumber": TEXT,
        "LinePlanningNumber": TEXT,
        "LineName": TEXT_OR_NULL,
        "LineDirection": {"type": ["integer", "string", "null"]},
    }
)
_LINE_NOW: dict[str, Json] = {"Line": _LINE, "Actuals": mappings(_PASS), "ServerTime": MOMENT}
_ON_LINE = objects({**STOP, "IsTimingStop": FLAG, "UserStopOrderNumber": NUMBER})
_AREA = objects({name: schema for name, schema in STOP.items() if name != "TimingPointCode"})
_AREAS = Parameter("StopAreaCodes", _LISTED, "StopAreaCodes, commas between them.", "LwdSta", "path", True)
_LINES = Parameter(
    "Lines", _LISTED, "DataOwnerCode_LinePlanningNumber_LineDirection, commas between them.", "LINDEBUS_1101_1",
    "path", True,
)  # fmt: skip
_JOURNEYS = Parameter(
    "Journeys", _LISTED, "DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_FortifyOrderNumber, "
    "commas between them: the names of Passes.", "LINDEBUS_110171_1101_1001_0", "path", True,
)  # fmt: skip
_STAMPS = objects(
    {
        "LastUpdateTimeStamps": objects(
            {"DataOwner": mappings(TEXT_OR_NULL), "Subscription": mappings(TEXT_OR_NULL)}
        ),
        "ServerTime": MOMENT,
    }
)


def _ovapi(
    template: str,
    summary: str,
    schema: Json,
    parameter: Parameter | None = None,
    *,
    picks: bool = False,
    always: bool = False,
    ask: str = "",
) -> Operation:
    nothing = {"type": "array", "maxItems": 0}
    answers = [ResponseSpec(200, "What there is, by code.", JSON, schema, FEED_HEADERS, ("Age",))]
    if not always:
        answers.append(ResponseSpec(404, "There is nothing of it: [].", JSON, nothing, NOT_FOUND_HEADERS))
    if parameter is not None:
        answers.append(ResponseSpec(503, "Nothing recent is known: [].", JSON, nothing, UNAVAILABLE_HEADERS))
    if picks:
        answers.append(INVALID_PARAMETER)
    parameters = (*([] if parameter is None else [parameter]), *(PICKED if picks else ()))
    examples = (Example("As it comes", ask),) if ask else ()
    return Operation(template, summary, tuple(answers), parameters, examples=examples, section="OVapi")


OVAPI: dict[str, list[Operation]] = {
    "tpc": [
        _ovapi("/tpc/", "Every stop, with its number of live passes", mappings(NUMBER)),
        _ovapi(
            "/tpc/{TimingPointCodes}", "Boards of stops", mappings(_BOARD), CODES, picks=True,
            ask="/tpc/57330430?limit=1",
        ),
        _ovapi(
            "/tpc/{TimingPointCodes}/departures",
            "Boards of stops, without what only arrives",
            mappings(_BOARD),
            CODES,
            picks=True,
        ),
    ],
    "stopareacode": [
        _ovapi("/stopareacode/", "Every stop area", mappings(_AREA)),
        _ovapi(
            "/stopareacode/{StopAreaCodes}", "Boards of all stops of areas", mappings(mappings(_BOARD)), _AREAS,
            picks=True,
        ),
        _ovapi(
            "/stopareacode/{StopAreaCodes}/departures",
            "Boards of all stops of areas, without what only arrives",
            mappings(mappings(_BOARD)),
            _AREAS,
            picks=True,
        ),
    ],
    "line": [
        _ovapi("/line/", "Every line in each direction", mappings(_LINE)),
        _ovapi(
            "/line/{Lines}",
            "Lines: where their journeys are, and their stops",
            mappings(objects({**_LINE_NOW, "Network": mappings(mappings(_ON_LINE))})),
            _LINES,
        ),
        _ovapi("/line/{Lines}/actuals", "Lines: where their journeys are", mappings(objects(_LINE_NOW)), _LINES),
    ],
    "journey": [
        _ovapi("/journey/", "Every live journey, with its number of stops", mappings(NUMBER)),
        _ovapi(
            "/journey/{Journeys}",
            "Journeys: their stops",
            mappings(objects({"ServerTime": MOMENT, "Stops": mappings(_PASS)})),
            _JOURNEYS,
        ),
    ],
    "generalmessage": [_ovapi("/generalmessage", "All messages that are for now", _MESSAGES, ask="/generalmessage")],
    "lastupdate": [_ovapi("/lastupdate", "When who last said something", _STAMPS, always=True, ask="/lastupdate")],
}  # fmt: skip
"""OVapi's paths, by their first segment."""
