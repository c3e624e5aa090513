"""The timetable of the town as a GTFS file of KV7, served with an index (docs/protocols.md, section 6)."""

import csv
import zipfile
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from io import BytesIO, StringIO

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from govi_server.departures.times import local_date, write_time
from govi_server.departures.timing_point import wgs84
from govi_server.http.dates import format_http_date
from govi_server.http.request import Environ
from govi_server.simulator.town import STATION, STATION_AREA, Journey, Town
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

DAYS = 9
"""Operating dates of a file, from yesterday."""

_COLUMNS = {
    "agency.txt": "agency_id agency_name agency_url agency_timezone",
    "stops.txt": "stop_id stop_code stop_name stop_lat stop_lon location_type parent_station",
    "routes.txt": """
        route_id agency_id route_short_name route_long_name route_desc route_type route_color route_text_color
        route_url""",
    "calendar_dates.txt": "service_id date exception_type",
    "trips.txt": "route_id service_id trip_id trip_headsign direction_id",
    "stop_times.txt": "trip_id stop_sequence stop_id arrival_time departure_time",
}
_BUS = "3"


def write_gtfs(town: Town, first_day: date, days: int = DAYS) -> bytes:
    """Return the file for some operating dates."""
    dates = [first_day + timedelta(n) for n in range(days)]
    level_days = {line.service_level(day): day for line in town.lines for day in dates}
    journeys = [
        journey
        for day in sorted(set(level_days.values()))
        for journey in town.journeys(day)
        if level_days[journey.line.service_level(day)] == day
    ]
    station = town.stops[STATION]
    rows: dict[str, Iterable[tuple[str, ...]]] = {
        "agency.txt": [("LINDEBUS", "Lindebus", "http://lindebus.example/", "Europe/Amsterdam")],
        "stops.txt": [
            (STATION_AREA, "", f"{station.town}, Station", *_position(station.x, station.y), "1", ""),
            *(
                (stop.code, stop.code, f"{stop.town}, {stop.name}", *_position(stop.x, stop.y), "", stop.area or "")
                for stop in town.stops.values()
            ),
        ],
        "routes.txt": [
            (
                *(line.line_planning_number, line.data_owner_code, line.line_public_number, line.name, "", _BUS),
                *(color or "" for color in line.colors),
                "",
            )
            for line in town.lines
        ],
        "calendar_dates.txt": [
            (line.service_level(day), f"{day:%Y%m%d}", "1") for line in town.lines for day in dates
        ],
        "trips.txt": [
            (
                journey.line.line_planning_number,
                journey.line.service_level(journey.operating_date),
                _trip_id(journey),
                journey.destination,
                str(journey.direction - 1),
            )
            for journey in journeys
        ],
        "stop_times.txt": [
            # stop_sequence is not UserStopOrderNumber.
            (_trip_id(journey), str(n), call.code, write_time(call.arrival), write_time(call.departure))
            for journey in journeys
            for n, call in enumerate(journey.calls)
        ],
    }
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for table, columns in _COLUMNS.items():
            text = StringIO()
            csv.writer(text).writerows([columns.split(), *rows[table]])
            archive.writestr(zipfile.ZipInfo(table, (1980, 1, 1, 0, 0, 0)), text.getvalue())
    return content.getvalue()


def _position(x: int, y: int) -> Iterator[str]:
    longitude, latitude = wgs84(x, y)
    return iter((str(latitude), str(longitude)))


def _trip_id(journey: Journey) -> str:
    line = journey.line
    level = line.service_level(journey.operating_date)
    return f"{line.data_owner_code}|{line.line_planning_number}|{level}|{journey.number}|{journey.fortify_order}"


@implementer(IWebModule)
class GtfsFiles(Service):
    """Serves an index and the file of today under /govi/, as the publisher does."""

    name = "govi"

    def __init__(self, town: Town, clock: IReactorTime) -> None:
        self._town = town
        self._clock = clock
        self._file: tuple[date, bytes, str] | None = None

    def file(self) -> tuple[str, bytes, str]:
        """Return name, content and Last-Modified of the file of today, which is made when it is first requested."""
        now = self._clock.seconds()
        today = local_date(now)
        if self._file is None or self._file[0] != today:
            self._file = today, write_gtfs(self._town, today - timedelta(1)), format_http_date(now)
        _, content, modified = self._file
        return f"gtfs-kv7-{today:%Y%m%d}.zip", content, modified

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "GtfsHandler":
        """Return the handler of a request."""
        return GtfsHandler(self, request_handler, env)


class GtfsHandler(WebHandler):
    """Sends the index, or the file unless the client has it."""

    def __init__(self, module: GtfsFiles, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the index or the file."""
        name, content, modified = self._module.file()
        path = self.env["path_info"]
        if path == "/govi/":
            body = f'<html><body><a href="../">..</a> <a href="{name}">{name}</a></body></html>\n'
            self.send_response(body, headers={"Content-Type": "text/html"})
        elif path != f"/govi/{name}":
            self.request_handler.send_not_found()
        elif self.env.get("if-modified-since") == modified:
            self.send_response("", "304 Not Modified", {"Last-Modified": modified})
        else:
            self.send_response(content, headers={"Content-Type": "application/zip", "Last-Modified": modified})
