"""Reads the documents of the live feed, in all forms, as the departures that they show, without govi_server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

from tests.simulation.feed import moments

Moments = tuple[float, float]
"""The earliest and the latest moment that a written time can mean; they differ in the repeated hour."""

HORIZONS = {"live": 7200.0, "board": 7200.0, "siri": 7200.0, "tpc": 5400.0}
"""Seconds for which a stop's document must show departures."""

_LIVE = frozenset(("on_time", "late", "early", "last_known"))
_STATUSES = {
    "DRIVING": _LIVE, "PLANNED": frozenset(("planned",)), "CANCEL": frozenset(("cancelled",)),
    "PASSED": frozenset(("passed",)), "UNKNOWN": frozenset(("unknown", "last_known")),
    "onTime": frozenset(("on_time",)), "delayed": frozenset(("late",)), "early": frozenset(("early",)),
    "cancelled": frozenset(("cancelled",)), "noReport": frozenset(("planned", "unknown", "last_known")),
    "departed": frozenset(("passed",)),
}  # fmt: skip
"""TripStopStatus, and SIRI's CallStatus, as the states of /board that they stand for."""


@dataclass(slots=True)
class Shown:
    """A departure in a document. Members that its form does not have are None."""

    line: str
    """LinePlanningNumber, or in /board the public number."""
    target: Moments
    expected: Moments | None
    states: frozenset[str]
    """The states that its status may stand for: those of /board, and passed."""
    destination: str | None
    public: str | None = None
    journey: int | None = None
    day: date | None = None
    is_live: bool = False
    """Whether the document says that it is of the live feed, and not of a timetable."""
    minutes: int | None = None
    """The remaining minutes."""


@dataclass(slots=True)
class Document:
    """What a document shows of a stop. messages: numbers of general messages; None if the form has none."""

    code: str
    shown: list[Shown] = field(default_factory=list)
    messages: set[str] | None = None
    is_known: bool = True
    is_by_journey: bool = False
    """Whether it is no list in order, but has one departure of each journey."""
    name: str | None = None


def _moment(text: str) -> Moments:
    moment = datetime.fromisoformat(text).timestamp()
    return moment, moment


def _clock(day: date, text: str) -> Moments:
    hours, minutes, seconds = map(int, text.split(":"))
    return moments(day, hours * 3600 + minutes * 60 + seconds)


def _local(text: str) -> Moments:
    local = datetime.fromisoformat(text)
    return moments(local.date(), local.hour * 3600 + local.minute * 60 + local.second)


def _numbers(texts: Any) -> set[str]:
    return {match[1] for text in texts if (match := re.search(r"nr\. (\d+)", text))}


@lru_cache(maxsize=1)  # several rules read the same response
def read(module: str, path: str, body: bytes) -> list[Document]:
    """Return what a document of a module shows, stop by stop; of a path that is not about departures, nothing."""
    if module == "live":
        return list(_dris_55(body))
    if module == "siri":
        return list(_siri(parse_qs(path.partition("?")[2])["MonitoringRef"][0], json.loads(body)))
    if module == "board":
        return list(board(body))
    if module == "tpc":
        return list(_tpc(json.loads(body)))
    if module in ("line", "journey"):
        return list(_passes_by_stop(json.loads(body), "Actuals" if module == "line" else "Stops"))
    return []


def _dris_55(body: bytes) -> Iterator[Document]:
    for point in ElementTree.fromstring(body).iter("TimingPoint"):
        document = Document(point.findtext("TimingPointCode", ""))
        for trip in point.iter("Trip"):
            texts = {element.tag: element.text or "" for element in trip}
            day = date.fromisoformat(texts["OperatingDate"])
            document.shown.append(
                Shown(
                    texts["LinePlanningNumber"], _clock(day, texts["TargetDepartureTime"]),
                    _clock(day, texts["ExpectedDepartureTime"]), _STATUSES[texts["TripStopStatus"]],
                    texts["DestinationName"], texts.get("LinePublicNumber"), int(texts["JourneyNumber"]), day,
                    texts["TripStopStatus"] != "PLANNED",
                )
            )  # fmt: skip
        yield document


def _pass(item: dict[str, Any]) -> Shown:
    return Shown(
        item["LinePlanningNumber"], _local(item["TargetDepartureTime"]), _local(item["ExpectedDepartureTime"]),
        _STATUSES[item["TripStopStatus"]], item["DestinationName50"], item["LinePublicNumber"],
        item["JourneyNumber"], date.fromisoformat(item["OperationDate"]), item["TripStopStatus"] != "PLANNED",
    )  # fmt: skip


def _tpc(content: dict[str, Any]) -> Iterator[Document]:
    for code, stop in content.items():
        shown = [_pass(item) for item in stop["Passes"].values()]
        texts = (message["MessageContent"] for message in stop["GeneralMessages"].values())
        yield Document(code, shown, _numbers(texts), is_by_journey=True, name=stop["Stop"]["TimingPointName"])


def _passes_by_stop(content: dict[str, Any], member: str) -> Iterator[Document]:
    for part in content.values():
        for item in part[member].values():
            yield Document(item["TimingPointCode"], [_pass(item)], is_by_journey=True)


def _siri(code: str, content: dict[str, Any]) -> Iterator[Document]:
    delivery = content["Siri"]["ServiceDelivery"]["StopMonitoringDelivery"][0]
    document = Document(code)
    for visit in delivery["MonitoredStopVisit"]:
        journey = visit["MonitoredVehicleJourney"]
        call = journey["MonitoredCall"]
        if "AimedDepartureTime" not in call:
            continue  # it only arrives
        _, _, line, number, _, day, _ = visit["ItemIdentifier"].split(":")
        expected = call.get("ExpectedDepartureTime")
        destination = journey.get("DestinationName")
        document.shown.append(
            Shown(
                line, _moment(call["AimedDepartureTime"]), expected and _moment(expected),
                _STATUSES[call["DepartureStatus"]], destination and destination[0]["value"],
                journey["PublishedLineName"][0]["value"], int(number), date.fromisoformat(day), journey["Monitored"],
            )
        )  # fmt: skip
    yield document


def board(body: bytes) -> Iterator[Document]:
    """Read the JSON of /board, which events have as well."""
    for stop in json.loads(body)["stops"]:
        document = Document(stop["code"], messages=_numbers(stop["messages"]), name=stop["name"])
        document.is_known = stop["state"] not in ("unknown", "down")
        for item in stop["departures"]:
            expected = item["expected"]
            document.shown.append(
                Shown(
                    item["line"], _moment(item["planned"]), expected and _moment(expected),
                    frozenset((item["state"],)), item["destination"], item["line"],
                    is_live=item["provenance"] == "kv8", minutes=item["minutes"],
                )
            )  # fmt: skip
        yield document
