"""OVapi's JSON documents as Structs, which define the bytes and the JSON Schemas.

Names, order and types are OVapi's (docs/protocols.md, section 3.2). The docstrings are the descriptions in
/openapi.json. Text columns of KV8 become members by a line in kv78turbo/kv8_columns.py.
"""

from collections.abc import Callable, Iterable
from inspect import getdoc
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from govi_server.kv78turbo.kv8_columns import EXTRA_NAMES

_ServerTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_Integer = int | UnsetType
"""A number; absent if its text is not numeric or too large, because typed clients reject any other type."""


class Stop(Struct, gc=False):
    """A stop. The position is in degrees (WGS 84); 3.3135424, 47.974766 stands for an unknown one, as in OVapi.

    The feed has no accessibility of stops: it is UNKNOWN.
    """

    Longitude: float
    Latitude: float
    TimingPointTown: str
    TimingPointName: str
    TimingPointCode: str
    StopAreaCode: str | None
    TimingPointWheelChairAccessible: str
    TimingPointVisualAccessible: str


class StopOfLine(Stop, gc=False):
    """A stop and its place in a journey pattern."""

    IsTimingStop: bool
    UserStopOrderNumber: int


class StopArea(Struct, gc=False):
    """A stop area, described by one of its stops."""

    TimingPointTown: str
    TimingPointName: str
    StopAreaCode: str
    Longitude: float
    Latitude: float


_Extended = TypeVar("_Extended", bound=type[Struct])


def _with_text_members(names: Iterable[str]) -> Callable[[_Extended], _Extended]:
    """Return a class decorator that appends optional text members to a Struct."""

    def extend(base: _Extended) -> _Extended:
        members = [(name, str | UnsetType, UNSET) for name in names]
        namespace = {"__doc__": getdoc(base)}
        return defstruct(base.__name__, members, bases=(base,), namespace=namespace, kw_only=True, gc=False)  # type: ignore[return-value]  # a subclass

    return extend


@_with_text_members(EXTRA_NAMES)
class PassDocument(Struct, kw_only=True, gc=False):
    """A journey at a stop. Times are local, without an offset; unknown members are absent.

    A time that the operator does not publish has the value of another of the four. Names that are unknown have the
    value of their code.
    """

    IsTimingStop: bool
    DestinationName50: str
    DataOwnerCode: str
    OperatorCode: str
    FortifyOrderNumber: _Integer = UNSET
    TransportType: str
    Latitude: float
    Longitude: float
    JourneyNumber: _Integer = UNSET
    JourneyPatternCode: _Integer = UNSET
    LocalServiceLevelCode: _Integer = UNSET
    LineDirection: _Integer = UNSET
    OperationDate: str
    TimingPointCode: str
    WheelChairAccessible: str
    LineName: str
    LinePublicNumber: str
    LastUpdateTimeStamp: str
    DestinationCode: str
    ExpectedDepartureTime: str
    UserStopOrderNumber: int
    ProductFormulaType: str
    TimingPointName: str
    LinePlanningNumber: str
    SideCode: str | UnsetType = UNSET
    TimingPointDataOwnerCode: str
    TimingPointTown: str
    TripStopStatus: str
    UserStopCode: str
    JourneyStopType: str
    TargetArrivalTime: str
    TargetDepartureTime: str
    ExpectedArrivalTime: str
    NumberOfCoaches: _Integer = UNSET
    StopAreaCode: str | UnsetType = UNSET
    TimingPointWheelChairAccessible: str
    TimingPointVisualAccessible: str


Message = dict[str, str]
"""A general message: its KV8 columns by name."""


class StopDocument(Struct):
    """A stop with its passes and its general messages, by their keys."""

    Stop: "Stop"
    Passes: dict[str, PassDocument]
    GeneralMessages: dict[str, Message]


class Line(Struct):
    """A line in one direction."""

    LineWheelchairAccessible: str
    TransportType: str
    DestinationName50: str
    DataOwnerCode: str
    DestinationCode: str
    LinePublicNumber: str
    LinePlanningNumber: str
    LineName: str
    LineDirection: _Integer = UNSET


class LineActuals(Struct):
    """A line with the pass of each journey at its current or next stop."""

    Line: "Line"
    Actuals: dict[str, PassDocument]
    ServerTime: _ServerTime


class LineNetwork(LineActuals):
    """A line with the current passes of its journeys, and its stops by journey pattern and order."""

    Network: dict[str, dict[str, StopOfLine]]


class Journey(Struct):
    """A journey: its passes by UserStopOrderNumber."""

    ServerTime: _ServerTime
    Stops: dict[str, PassDocument]


class LastUpdateTimeStamps(Struct):
    """The latest timestamp of each data owner and of each subscription of the feed."""

    DataOwner: dict[str, str]
    Subscription: dict[str, str]


class LastUpdate(Struct):
    """The latest timestamps of the feed."""

    LastUpdateTimeStamps: "LastUpdateTimeStamps"
    ServerTime: _ServerTime


StopDocuments = dict[str, StopDocument]
"""/tpc/{TimingPointCodes}: boards by TimingPointCode."""

AreaBoards = dict[str, StopDocuments]
"""/stopareacode/{StopAreaCodes}: boards by StopAreaCode and TimingPointCode."""

Nothing = Annotated[list[str], Meta(max_length=0)]
"""The body of a response without results: []."""
