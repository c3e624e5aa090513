"""The operations of OVapi's paths, for each first segment."""

from typing import Any

from govi_server.documents.ovapi_structs import (
    AreaBoards,
    Journey,
    LastUpdate,
    Line,
    LineActuals,
    LineNetwork,
    Message,
    Nothing,
    StopArea,
    StopDocuments,
)
from govi_server.http.parameters import Parameter, String
from govi_server.modules.feed_responses import FEED_HEADERS, INVALID_PARAMETER, NOT_FOUND_HEADERS, UNAVAILABLE_HEADERS
from govi_server.modules.query_parameters import CODES, FILTERS
from govi_server.openapi.description import Example, Operation, ResponseSpec

JSON = "application/json"

_LIST = String(min_length=1)
_AREAS = Parameter("StopAreaCodes", _LIST, "StopAreaCodes, separated by commas.", "LwdSta", "path", True)
_LINES = Parameter(
    "Lines",
    _LIST,
    "DataOwnerCode_LinePlanningNumber_LineDirection, separated by commas.",
    "LINDEBUS_1101_1",
    "path",
    True,
)
_JOURNEYS = Parameter(
    "Journeys",
    _LIST,
    "DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_FortifyOrderNumber, separated by commas: "
    "the keys of Passes.",
    "LINDEBUS_110171_1101_1001_0",
    "path",
    True,
)


def _operation(
    noun: str,
    template: str,
    summary: str,
    body: Any,
    parameter: Parameter | None = None,
    *,
    filters: tuple[Parameter, ...] = (),
    is_never_empty: bool = False,
    example: str = "",
) -> Operation:
    """Return an operation of OVapi. parameter: its list of codes. filters: its query parameters."""
    responses = [ResponseSpec(200, "The results by code.", JSON, body, FEED_HEADERS, ("Age",))]
    if not is_never_empty:
        responses.append(ResponseSpec(404, "No results: [].", JSON, Nothing, NOT_FOUND_HEADERS))
    if parameter is not None:
        responses.append(ResponseSpec(503, "No recent data is available: [].", JSON, Nothing, UNAVAILABLE_HEADERS))
    if filters:
        responses.append(INVALID_PARAMETER)
    parameters = (*([] if parameter is None else [parameter]), *filters)
    examples = (Example("The complete document", example),) if example else ()
    return Operation(
        template,
        summary,
        tuple(responses),
        parameters,
        examples=examples,
        section="OVapi",
        noun=noun,
        has_problems=False,
    )


STOPS: list[Operation] = [
    _operation("StopCounts", "/tpc/", "All stops, with the number of live passing times at each", dict[str, int]),
    _operation(
        "StopBoards",
        "/tpc/{TimingPointCodes}",
        "Boards of stops",
        StopDocuments,
        CODES,
        filters=FILTERS,
        example="/tpc/57330430?limit=1",
    ),
    _operation(
        "StopDepartures",
        "/tpc/{TimingPointCodes}/departures",
        "Boards of stops, without arrivals at a last stop",
        StopDocuments,
        CODES,
        filters=FILTERS,
    ),
]

STOP_AREAS: list[Operation] = [
    _operation("StopAreas", "/stopareacode/", "All stop areas", dict[str, StopArea]),
    _operation(
        "StopAreaBoards",
        "/stopareacode/{StopAreaCodes}",
        "Boards of all stops in stop areas",
        AreaBoards,
        _AREAS,
        filters=FILTERS,
    ),
    _operation(
        "StopAreaDepartures",
        "/stopareacode/{StopAreaCodes}/departures",
        "Boards of all stops in stop areas, without arrivals at a last stop",
        AreaBoards,
        _AREAS,
        filters=FILTERS,
    ),
]

LINES: list[Operation] = [
    _operation("Lines", "/line/", "All lines, by direction", dict[str, Line]),
    _operation(
        "LineNetworks",
        "/line/{Lines}",
        "Vehicle positions (the current stop of each journey) and stops of lines",
        dict[str, LineNetwork],
        _LINES,
    ),
    _operation(
        "LineActuals",
        "/line/{Lines}/actuals",
        "Vehicle positions of lines (the current stop of each journey)",
        dict[str, LineActuals],
        _LINES,
    ),
]

JOURNEYS: list[Operation] = [
    _operation("JourneyCounts", "/journey/", "All live journeys, with the number of stops of each", dict[str, int]),
    _operation("Journeys", "/journey/{Journeys}", "Stops of journeys", dict[str, Journey], _JOURNEYS),
]

GENERAL_MESSAGES: list[Operation] = [
    _operation(
        "GeneralMessages",
        "/generalmessage",
        "All current general messages",
        dict[str, Message],
        example="/generalmessage",
    )
]

LAST_UPDATE: list[Operation] = [
    _operation(
        "LastUpdate",
        "/lastupdate",
        "Latest timestamps of data owners and subscriptions",
        LastUpdate,
        is_never_empty=True,
        example="/lastupdate",
    )
]
