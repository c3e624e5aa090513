"""What /kv55 and OVapi's paths declare: apart from the modules, for it is as long as they are."""

from govi_server.contract import (
    DEGREES_OR_NULL,
    FLAG,
    NUMBER,
    TEXT,
    TEXT_OR_NULL,
    Answer,
    Json,
    Parameter,
    Path,
    Text,
    mappings,
    objects,
)
from govi_server.modules.live import PICKED, TIMING_POINT_CODE

XML = "text/xml"
JSON = "application/json"
ABOUT = ("Age", "Cache-Control", "Cache-Status", "ETag", "Feed-State")
FAILED = ("Cache-Control", "Feed-State", "Retry-After")

_CODE = Parameter("TimingPointCode", TIMING_POINT_CODE, "A stop.", "57330430", "path", True)
_LISTED = Text(least=1)
CODES = Parameter(
    "TimingPointCodes", _LISTED, "TimingPointCodes, a hundred at most, commas between them.", "57330430,57330080",
    "path", True,
)  # fmt: skip
_WRONG = Answer(400, "A parameter is wrong; the text names it.")


def kv55_gateway(name: str) -> list[Path]:
    """Declare a module that answers from a gateway."""
    answers = (
        Answer(200, "The board, a DRIS_55 document.", XML, TEXT, ("Age", "Cache-Control", "Cache-Status", "ETag")),
        Answer(404, "This is no TimingPointCode; DRIS_55 with Error.", XML, TEXT),
        Answer(502, "The gateway's answer cannot be read; DRIS_55 with Error.", XML, TEXT, ("Retry-After",)),
        Answer(503, "Too many questions are on their way; DRIS_55 with Error.", XML, TEXT, ("Retry-After",)),
        Answer(504, "The gateway gave no answer; DRIS_55 with Error.", XML, TEXT, ("Retry-After",)),
    )
    return [Path(f"/{name}/{{TimingPointCode}}", "The departures of a stop, as DRIS_55", answers, (_CODE,))]


def kv55_live(name: str) -> list[Path]:
    """Declare a module that answers /kv55 from the live feed."""
    answers = (
        Answer(200, "The boards of the stops that are known, a DRIS_55 document.", XML, TEXT, ABOUT),
        _WRONG,
        Answer(404, "None of these stops is known; DRIS_55 with Error.", XML, TEXT),
        Answer(503, "Nothing recent is known; DRIS_55 with Error.", XML, TEXT, FAILED),
    )
    parameters = (CODES, *PICKED)
    return [Path(f"/{name}/{{TimingPointCodes}}", "The departures of stops, as DRIS_55", answers, parameters)]


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
_PASS = objects(
    {
        **dict.fromkeys(
            (
                *("DestinationName50", "DataOwnerCode", "OperatorCode", "OperationDate", "TimingPointCode"),
                *("WheelChairAccessible", "LinePublicNumber", "ExpectedDepartureTime", "ProductFormulaType"),
                *("TimingPointName", "LinePlanningNumber", "TimingPointTown", "TripStopStatus", "UserStopCode"),
                *("JourneyStopType", "TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime"),
            ),
            TEXT,
        ),
        **dict.fromkeys(("FortifyOrderNumber", "JourneyNumber", "UserStopOrderNumber"), _NUMBER_OR_TEXT),
        **dict.fromkeys(("LineName", "LastUpdateTimeStamp", "DestinationCode", "TransportType"), TEXT_OR_NULL),
        "IsTimingStop": FLAG,
        "Latitude": DEGREES_OR_NULL,
        "Longitude": DEGREES_OR_NULL,
    },
    # Times are there where any is; of a number of three it is as for the times.
    ("DestinationName50", "DataOwnerCode", "JourneyNumber", "LinePublicNumber", "LinePlanningNumber", "OperationDate",
     "TimingPointCode", "TimingPointName", "TripStopStatus", "Latitude", "Longitude", "LastUpdateTimeStamp"),
)  # fmt: skip
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
_ON_LINE = objects({"Line": _LINE, "Actuals": mappings(_PASS), "ServerTime": TEXT})
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
        "ServerTime": TEXT,
    }
)


def _ovapi(
    template: str, summary: str, schema: Json, parameter: Parameter | None = None, *, picks: bool = False
) -> Path:
    nothing = {"type": "array", "maxItems": 0}
    answers = (
        Answer(200, "What there is, by code.", JSON, schema, ABOUT),
        _WRONG,
        Answer(404, "There is nothing of it: [].", JSON, nothing),
        Answer(503, "Nothing recent is known: [].", JSON, nothing, FAILED),
    )
    parameters = (*([] if parameter is None else [parameter]), *(PICKED if picks else ()))
    return Path(template, summary, answers, parameters, section="OVapi")


OVAPI: dict[str, list[Path]] = {
    "tpc": [
        _ovapi("/tpc/", "Every stop, with its number of live passes", mappings(NUMBER)),
        _ovapi("/tpc/{TimingPointCodes}", "Boards of stops", mappings(_BOARD), CODES, picks=True),
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
            mappings({**_ON_LINE, "required": ["Line", "Actuals", "ServerTime", "Network"]}),
            _LINES,
        ),
        _ovapi("/line/{Lines}/actuals", "Lines: where their journeys are", mappings(_ON_LINE), _LINES),
    ],
    "journey": [
        _ovapi("/journey/", "Every live journey, with its number of stops", mappings(NUMBER)),
        _ovapi(
            "/journey/{Journeys}",
            "Journeys: their stops",
            mappings(objects({"ServerTime": TEXT, "Stops": mappings(_PASS)})),
            _JOURNEYS,
        ),
    ],
    "generalmessage": [_ovapi("/generalmessage", "All messages that are for now", _MESSAGES)],
    "lastupdate": [_ovapi("/lastupdate", "When who last said something", _STAMPS)],
}  # fmt: skip
"""OVapi's paths, by their first segment."""
