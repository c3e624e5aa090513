"""The KV7 timetable in memory, and its lookups."""

from collections.abc import Iterator
from datetime import date, timedelta

from govi_server.departures.times import PassingTimes, local_date, moment, write_time
from govi_server.kv78turbo.ctx import texts
from govi_server.kv78turbo.kv7_reader import VALUE_NAMES, planned_times
from govi_server.kv78turbo.kv7_tables import NO_CALENDAR, NO_PUBLICATION, TimetableTables, level_of
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.text import nonblank


class Timetable(TimetableTables):
    """Serves lookups in the timetable of KV7."""

    def public_number(self, passtime: Passtime) -> str:
        """Return the LinePublicNumber of a passtime, or its LinePlanningNumber if unknown."""
        line = self.lines.get((passtime.data_owner_code, passtime.line_planning_number))
        return passtime.line_public_number or (line and line.public_number) or passtime.line_planning_number

    def destination(self, passtime: Passtime) -> str:
        """Return the name of a passtime's destination, or its code if unknown; "" without either."""
        code = passtime.destination_code or ""
        return passtime.destination_name or self.destinations.get((passtime.data_owner_code, code), code)

    def line_name(self, passtime: Passtime) -> str:
        """Return the LineName of a passtime, or its public number if unknown."""
        line = self.lines.get((passtime.data_owner_code, passtime.line_planning_number))
        return (line and line.name) or self.public_number(passtime)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 has a TimingPointCode."""
        return code in self.timing_points or code in self._user_stops

    def confirm_stop(self, code: str) -> None:
        """Record that a stop was requested, so that its name is not evicted."""
        self.timing_points.confirm(code)

    def has_planning(self, code: str) -> bool:
        """Return whether passtimes of a stop are planned, on any date."""
        return any(stop in self._planned for stop in self._user_stops.get(code, ()))

    def passtimes(self, code: str, since: float, until: float) -> Iterator[tuple[bytes, Passtime]]:
        """Yield the planned passtimes of a stop between two moments (epoch seconds), each with its key in KV8.

        A passtime applies on the dates of its service level.
        """
        first = local_date(since)
        dates = [first + timedelta(n) for n in range(-1, (local_date(until) - first).days + 1)]
        for stop in self._user_stops.get(code, ()):
            for group, passtimes in self._planned.get(stop, {}).items():
                calendar = self._dates.get(level_of(group), NO_CALENDAR)
                valid = [day for day in dates if day in calendar.dates]
                for key, values in passtimes.items() if valid else ():
                    yield from self._on_dates(valid, key, values, code, since, until)

    def _on_dates(
        self, dates: list[date], key: bytes, values: bytes, code: str, since: float, until: float
    ) -> Iterator[tuple[bytes, Passtime]]:
        arrival, departure, stop_type, _ = values.split(b"|", 3)
        if stop_type == b"INFOPOINT":
            return
        times = planned_times(arrival, departure, stop_type)
        seconds = times.target_arrival if times.target_departure is None else times.target_departure
        for day in dates:
            time = None if seconds is None else moment(day, seconds)
            if time is not None and since <= time <= until:
                *journey, order, _ = key.split(b"|")
                kv8_key = b"|".join((*journey, day.isoformat().encode(), order))
                yield kv8_key, self._passtime(key, values, code, day, times)

    def _passtime(self, key: bytes, values: bytes, code: str, day: date, times: PassingTimes) -> Passtime:
        operator, level, line, journey, fortify, order, stop = (part or "" for part in texts(key))
        columns = dict(zip(VALUE_NAMES, map(nonblank, texts(values)), strict=True))
        arrival, departure = (None if time is None else write_time(time) for time in times[:2])
        arrives, departs = (None if time is None else moment(day, time) for time in times[:2])
        publication = self._published.get(b"|".join(key.split(b"|", 3)[:3]))
        return Passtime(
            data_owner_code=operator,
            local_service_level_code=level,
            line_planning_number=line,
            journey_number=journey,
            fortify_order_number=fortify,
            operation_date=day,
            user_stop_order_number=order,
            user_stop_code=stop,
            timing_point_code=code,
            timing_point_data_owner_code="ALGEMEEN",
            last_update=None if publication is None else publication.published,
            target_arrival_time=arrival,
            expected_arrival_time=arrival,
            target_departure_time=departure,
            expected_departure_time=departure,
            target_arrival=arrives,
            expected_arrival=arrives,
            target_departure=departs,
            expected_departure=departs,
            trip_stop_status="PLANNED",
            journey_stop_type=columns["JourneyStopType"] or "UNKNOWN",
            wheelchair=columns["WheelChairAccessible"] or "UNKNOWN",
            destination_code=columns["DestinationCode"],
            line_direction=columns["LineDirection"],
            journey_pattern_code=columns["JourneyPatternCode"],
            is_timing_stop=columns["IsTimingStop"] == "1",
            side_code=columns["SideCode"],
            product_formula_type=columns["ProductFormulaType"],
        )

    def journey(self, prefix: bytes, now: float) -> dict[bytes, Passtime]:
        """Return the planned passtimes of a journey around a moment, by their keys in KV8.

        prefix: the first five columns of the key, each with its separator.
        """
        group = b"|".join(prefix.split(b"|", 3)[:3])
        dates = self._dates.get(level_of(group), NO_CALENDAR).dates
        valid = sorted(dates & {local_date(now) + timedelta(n) for n in (-1, 0, 1)})
        passtimes: dict[bytes, Passtime] = {}
        for stop in self._published.get(group, NO_PUBLICATION).stops if valid else ():
            code = self._code_of.get(stop)
            for key, values in self._planned[stop][group].items() if code is not None else ():
                if code is not None and key.startswith(prefix):
                    passtimes.update(self._on_dates(valid, key, values, code, 0.0, now + 7 * 86400))
        return passtimes

    def first_passtimes(
        self, operator: str, line: str, direction: str, since: float, until: float
    ) -> list[tuple[bytes, Passtime]]:
        """Return the first passtime of each planned journey of a line, as passtimes() does for a stop."""
        stops = {
            stop for group in self._groups_of_line.get((operator, line), ()) for stop in self._published[group].stops
        }
        codes = {code for stop in stops if (code := self._code_of.get(stop)) is not None}
        return [
            (key, passtime)
            for code in codes
            for key, passtime in self.passtimes(code, since, until)
            if (passtime.data_owner_code, passtime.line_planning_number) == (operator, line)
            and (passtime.line_direction, passtime.journey_stop_type) == (direction, "FIRST")
        ]

    def patterns(self, operator: str, line: str, direction: str) -> dict[str, dict[int, tuple[str, bool]]]:
        """Return the patterns of a line in a direction: TimingPointCode and IsTimingStop by UserStopOrderNumber."""
        patterns: dict[str, dict[int, tuple[str, bool]]] = {}
        for group in self._groups_of_line.get((operator, line), ()):
            for stop in self._published[group].stops:
                code = self._code_of.get(stop)
                if code is None:
                    continue
                for key, values in self._planned[stop][group].items():
                    columns = dict(zip(VALUE_NAMES, texts(values), strict=True))
                    pattern, order = columns["JourneyPatternCode"], int(key.split(b"|")[5])
                    if (
                        pattern
                        and columns["LineDirection"] == direction
                        and columns["JourneyStopType"] != "INFOPOINT"
                    ):
                        patterns.setdefault(pattern, {})[order] = (code, columns["IsTimingStop"] == "1")
        return patterns
