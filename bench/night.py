"""A night's timetable of a country in the form of the feed's messages (docs/protocols.md, sections 2.3 and 2.4)."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from govi_server.departures.times import local_timestamp, write_time
from govi_server.runtime.clock import LOCAL_ZONE

OPERATORS = 10
STOPS_PER_LINE = 40
LEVELS = 5
PLANNED_LABELS = (
    "DataOwnerCode|LocalServiceLevelCode|LinePlanningNumber|JourneyNumber|FortifyOrderNumber|UserStopCode|"
    "UserStopOrderNumber|JourneyPatternCode|LineDirection|DestinationCode|TargetArrivalTime|TargetDepartureTime|SideCode|"
    "WheelChairAccessible|JourneyStopType|IsTimingStop|ProductFormulaType|GetIn|GetOut|ShowFlexibleTrip|LineDestIcon|"
    "LineDestColor|LineDestTextColor|BlockCode|SequenceInBlock|VehicleJourneyType"
)


class Night:
    """A timetable in the form of the captures: messages of KV7 by operator; some operators send one large message."""

    def __init__(self, stops: int, planned: int, published: float) -> None:
        self.published = local_timestamp(published)
        self.stops, self.per_operator = stops, stops // OPERATORS
        self.lines = self.per_operator // STOPS_PER_LINE
        groups = OPERATORS * LEVELS * self.lines
        self.journeys = max(round(planned / (groups * STOPS_PER_LINE)), 1)
        self.planned = groups * STOPS_PER_LINE * self.journeys
        self.today = datetime.fromtimestamp(published, LOCAL_ZONE).date()

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each message."""
        for operator in range(OPERATORS):
            owner = f"OP{operator}"
            calendar = self.head("KV7turbo_calendar", owner)
            for level in range(LEVELS):
                days = [self.today + timedelta(n) for n in range(-1, 30) if n % LEVELS == level or level == 0]
                key = f"{owner}|{685000 + level}"
                calendar += table("LOCALSERVICEGROUP", "DataOwnerCode|LocalServiceLevelCode", [key])
                labels = "DataOwnerCode|LocalServiceLevelCode|OperationDate"
                calendar += table("LOCALSERVICEGROUPVALIDITY", labels, [f"{key}|{day}" for day in days])
            yield f"KV7calendar_{owner}", calendar.encode()
            parts = [self.planning(owner, operator, level) for level in range(LEVELS)]
            if operator % 5:
                for level, part in enumerate(parts):
                    yield f"KV7planning_{owner}_{level}", part.encode()
            else:
                yield f"KV7planning_{owner}", "".join(parts).encode()

    def head(self, label: str, owner: str) -> str:
        """Return the first line of a group."""
        return f"\\G{label}|{label}|OpenOV {owner}|||UTF-8|0.1|{self.published}|\ufeff\r\n"

    def planning(self, owner: str, operator: int, level: int) -> str:
        """Return the planning of a service level."""
        first = 40000000 + operator * self.per_operator
        codes = [str(first + n) for n in range(self.per_operator)]
        lines, directions = [f"F{line:03}" for line in range(self.lines)], ("001", "002")
        names = [
            f"{owner}|{line}01{direction}|Lindedorp {line} via Brug" for line in lines for direction in directions
        ]
        points = [
            rf"ALGEMEEN|{code}|Lindedorp, Stop {code}|Lindedorp|{100000 + n}|{400000 + n}|\0|ld{n // 4}"
            for n, code in enumerate(codes)
        ]
        return "".join(
            (
                self.head("KV7turbo_planning", owner),
                table("DESTINATION", "DataOwnerCode|DestinationCode|DestinationName50", names),
                table(
                    "LINE",
                    "DataOwnerCode|LinePlanningNumber|LinePublicNumber|LineName|TransportType",
                    [f"{owner}|{line}|{line[1:]}|Lindedorp - Station {line}|BUS" for line in lines],
                ),
                table(
                    "TIMINGPOINT",
                    "DataOwnerCode|TimingPointCode|TimingPointName|TimingPointTown|LocationX_EW|LocationY_NS|LocationZ|"
                    "StopAreaCode",
                    points,
                ),
                table(
                    "USERTIMINGPOINT",
                    "DataOwnerCode|UserStopCode|TimingPointDataOwnerCode|TimingPointCode|GetIn|GetOut",
                    [f"{owner}|{code}|ALGEMEEN|{code}|1|1" for code in codes],
                ),
                table("LOCALSERVICEGROUPPASSTIME", PLANNED_LABELS, self.passtimes(owner, codes, level)),
            )
        )

    def passtimes(self, owner: str, codes: list[str], level: int) -> list[str]:
        """Return the planned passtimes of a service level."""
        rows = []
        for line in range(self.lines):
            for journey in range(self.journeys):
                start = 5 * 3600 + journey * 68400 // self.journeys + line % 60 * 60
                direction = 1 + journey % 2
                for order in range(1, STOPS_PER_LINE + 1):
                    code, arrival = (
                        codes[(line * STOPS_PER_LINE + order) % len(codes)],
                        write_time(start + order * 90),
                    )
                    kind = "FIRST" if order == 1 else "LAST" if order == STOPS_PER_LINE else "INTERMEDIATE"
                    departure = "00:00:00" if order == STOPS_PER_LINE else arrival
                    rows.append(
                        f"{owner}|{685000 + level}|F{line:03}|{7001 + journey}|0|{code}|{order}|{310000 + line}|"
                        f"{direction}|F{line:03}01{direction:03}|{arrival}|{departure}|-|ACCESSIBLE|{kind}|"
                        rf"{order % 5 == 0:d}|18|1|1|\0|\0|\0|\0|\0|\0|PUJO"
                    )
        return rows


def table(name: str, labels: str, rows: list[str]) -> str:
    """Return a table of CTX."""
    return "\r\n".join([f"\\T{name}|{name}|start object", f"\\L{labels}", *rows, ""])
