"""The timetable of KV7 in memory, completed from GTFS, and its lookups.

Longer than other modules: each lookup has a part for either source.
"""

from collections.abc import Container, Generator, Iterator, Sequence
from datetime import date, timedelta
from functools import partial

from govi_server.departures.modes import Mode, mode_of
from govi_server.departures.times import DAY, PassingTimes, local_date, moment, read_date
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.ctx import NULL, text, texts
from govi_server.kv78turbo.kv7_journeys import Journey, group_of, journey_of, user_stop_of
from govi_server.kv78turbo.kv7_reader import VALUE_NAMES, Group, Line, planned_times
from govi_server.kv78turbo.kv7_tables import NO_CALENDAR, NO_PUBLICATION, TimetableTables, level_of
from govi_server.kv78turbo.passtime import Passtime, PlannedCall, planned_passtime
from govi_server.runtime.cooperative import STEP_ITEMS
from govi_server.runtime.text import nonblank

_NO_VALUES = b"|".join([NULL] * len(VALUE_NAMES))


class Timetable(TimetableTables):
    """Serves lookups in the timetable of KV7, and in that of GTFS for lines and dates that KV7 has not planned."""

    # Names: those of KV7, and otherwise those of GTFS.

    def line(self, operator: str, number: str) -> Line | None:
        """Return a line; None if it is unknown. number: its LinePlanningNumber."""
        line = self.lines.get((operator, number))
        return self.gtfs.line(operator, number) if line is None and self.gtfs is not None else line

    def timing_point(self, code: str) -> TimingPoint | None:
        """Return the name, area and position of a stop; None if they are unknown."""
        point = self.timing_points.get(code)
        return self.gtfs.planning.timing_point(code) if point is None and self.gtfs is not None else point

    def area_name(self, area: str) -> str | None:
        """Return the name of a stop area; None if it is unknown."""
        name = self.stop_areas.get(area)
        return self.gtfs.planning.area_name(area) if name is None and self.gtfs is not None else name

    def area_stops(self, area: str) -> list[str]:
        """Return the TimingPointCodes of a stop area."""
        codes = [*self.points_of_area.get(area, ())]
        if self.gtfs is not None:
            codes += [code for code in self.gtfs.planning.area_stops(area) if code not in self.timing_points]
        return codes

    def areas(self) -> Iterator[str]:
        """Yield the codes of all stop areas, some of which may have no stops."""
        yield from list(self.points_of_area)
        if self.gtfs is not None:
            yield from (area for area in self.gtfs.planning.areas() if area not in self.points_of_area)

    @property
    def n_areas(self) -> int:
        """The number of stop areas, at most."""
        return len(self.points_of_area) + (0 if self.gtfs is None else self.gtfs.planning.n_areas)

    def is_named_stop(self, code: str) -> bool:
        """Return whether a TimingPointCode is one of stop_codes()."""
        return code in self.timing_points or self._is_planned_stop(code)

    def stop_codes(self) -> Iterator[str]:
        """Yield all TimingPointCodes that have names."""
        yield from list(self.timing_points)
        if self.gtfs is not None:
            yield from (code for code in self.gtfs.planning.codes() if code not in self.timing_points)

    @property
    def n_stops(self) -> int:
        """The number of stops that have names, at most."""
        return max(len(self.timing_points), 0 if self.gtfs is None else self.gtfs.planning.n_stops)

    def public_number(self, passtime: Passtime) -> str:
        """Return the LinePublicNumber of a passtime, or its LinePlanningNumber if unknown."""
        line = self.line(passtime.data_owner_code, passtime.line_planning_number)
        return passtime.line_public_number or (line and line.public_number) or passtime.line_planning_number

    def destination(self, passtime: Passtime) -> str:
        """Return the name of a passtime's destination, or its code if unknown; "" without either."""
        code = passtime.destination_code or ""
        name = passtime.destination_name or self.destinations.get((passtime.data_owner_code, code))
        return name or passtime.headsign or code

    def line_name(self, passtime: Passtime) -> str:
        """Return the LineName of a passtime, or its public number if unknown."""
        line = self.line(passtime.data_owner_code, passtime.line_planning_number)
        return (line and line.name) or self.public_number(passtime)

    def mode(self, operator: str, line: str) -> Mode | None:
        """Return the mode of transport of a line; None if unknown. line: its LinePlanningNumber."""
        known = self.line(operator, line)
        return None if known is None else mode_of(known.transport_type)

    def usage(self, code: str) -> tuple[frozenset[Mode], int]:
        """Return the modes that serve a stop, and its number of planned passtimes on all service levels or dates."""
        groups = [
            (stop, group) for stop in self._user_stops.get(code, ()) for group in self._groups_of_stop.get(stop, ())
        ]
        if not groups and self.gtfs is not None:
            transport_types, n_departures = self.gtfs.planning.usage(code)
            return frozenset(mode for mode in map(mode_of, transport_types) if mode is not None), n_departures
        lines = {(operator, line) for operator, _, line in (group.decode().split("|") for _, group in groups)}
        modes = frozenset(mode for mode in (self.mode(*line) for line in lines) if mode is not None)
        return modes, sum(len(self._published[group].passtimes(stop)) for stop, group in groups)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 or GTFS has a TimingPointCode."""
        return code in self._user_stops or self.is_named_stop(code)

    def confirm_stop(self, code: str) -> None:
        """Record that a stop was requested, so that its name is not evicted."""
        self.timing_points.confirm(code)

    def invalidate_stop(self, code: str) -> None:
        """Change the token of a stop: its planned passtimes are to be joined anew."""
        self._names.change(code)

    def has_planning(self, code: str) -> bool:
        """Return whether passtimes of a stop are planned, on any date."""
        if any(stop in self._groups_of_stop for stop in self._user_stops.get(code, ())):
            return True
        return self.gtfs is not None and self.gtfs.planning.has_calls(code)

    def passtimes(self, code: str, since: float, until: float) -> Iterator[PlannedCall | None]:
        """Yield the planned passtimes of a stop between two moments (epoch seconds).

        A passtime applies on the dates of its service level. Yields None for a step without one.
        """
        dates = _dates_around(since, until)
        for stop in self._user_stops.get(code, ()):
            for group in list(self._groups_of_stop.get(stop, ())):
                yield None
                valid = self._valid_dates(group, dates)
                passtimes = self._published.get(group, NO_PUBLICATION).passtimes(stop)
                for n, (key, values) in enumerate(passtimes.items() if valid else (), 1):
                    if n % STEP_ITEMS == 0:
                        yield None
                    yield from self._on_dates(valid, key, values, code, since, until)
        if self.gtfs is not None:
            yield from self.gtfs.passtimes(code, dates, since, until)

    def find(self, key: bytes, passtime: Passtime) -> Generator[None, None, PlannedCall | None]:
        """Return the planned passtime of a passtime of KV8, at the same TimingPoint, in steps; None if there is none.

        key: the key of the passtime.
        """
        planned = yield from self._find(key, passtime.timing_point_code)
        return self.gtfs.find(passtime) if planned is None and self.gtfs is not None else planned

    def _find(self, key: bytes, code: str) -> Generator[None, None, PlannedCall | None]:
        """Return the planned passtime of KV7 with a key of KV8 at a TimingPoint, in steps; None if there is none."""
        operator, level, line, number, fortify, date_text, order = key.split(b"|")
        day = read_date(date_text.decode())
        group = b"|".join((operator, level, line))
        if day is None or group not in self._published or not self._valid_dates(group, [day]):
            return None
        for n, stop in enumerate(self._user_stops.get(code, ()), 1):
            if n % STEP_ITEMS == 0:
                yield
            of_operator, _, user_stop = stop.partition(b"|")
            planned_key = b"|".join((group, number, fortify, order, user_stop))
            values = self._published.get(group, NO_PUBLICATION).passtimes(stop).get(planned_key)
            if of_operator == operator and values is not None:
                for call in self._calls([day], planned_key, values, code):
                    return call
        return None

    def _valid_dates(self, group: Group, dates: list[date]) -> list[date]:
        calendar = self._dates.get(level_of(group), NO_CALENDAR)
        return [day for day in dates if day in calendar.dates]

    def _on_dates(
        self, dates: list[date], key: bytes, values: bytes, code: str, since: float, until: float
    ) -> Iterator[PlannedCall]:
        for call in self._calls(dates, key, values, code):
            if since <= call.time <= until:
                yield call

    def _calls(self, dates: list[date], key: bytes, values: bytes, code: str) -> Iterator[PlannedCall]:
        """Yield a planned passtime on each date."""
        arrival, departure, stop_type, _ = values.split(b"|", 3)
        if stop_type == b"INFOPOINT":
            return
        times = planned_times(arrival, departure, stop_type)
        seconds = times.target_arrival if times.target_departure is None else times.target_departure
        *journey, order, _ = key.split(b"|")
        for day in dates:
            time = None if seconds is None else moment(day, seconds)
            if time is not None:
                kv8_key = b"|".join((*journey, day.isoformat().encode(), order))
                yield PlannedCall(kv8_key, day, time, partial(self._passtime, key, values, code, day, times))

    def _passtime(self, key: bytes, values: bytes, code: str, day: date, times: PassingTimes) -> Passtime:
        operator, level, line, journey, fortify, order, stop = (part or "" for part in texts(key))
        columns = dict(zip(VALUE_NAMES, map(nonblank, texts(values)), strict=True))
        published = self._published.get(group_of(key), NO_PUBLICATION).published
        return planned_passtime(
            day,
            times.target_arrival,
            times.target_departure,
            data_owner_code=operator,
            local_service_level_code=level,
            line_planning_number=line,
            journey_number=journey,
            fortify_order_number=fortify,
            user_stop_order_number=order,
            user_stop_code=stop,
            timing_point_code=code,
            last_update=published or None,
            journey_stop_type=columns["JourneyStopType"] or "UNKNOWN",
            wheelchair=columns["WheelChairAccessible"] or "UNKNOWN",
            destination_code=columns["DestinationCode"],
            line_direction=columns["LineDirection"],
            journey_pattern_code=columns["JourneyPatternCode"],
            is_timing_stop=columns["IsTimingStop"] == "1",
            side_code=columns["SideCode"],
            product_formula_type=columns["ProductFormulaType"],
            provenance="kv7",
        )

    def journey(self, journey: Journey, now: float) -> Iterator[PlannedCall]:
        """Yield the planned passtimes of a journey yesterday, today and tomorrow."""
        group = group_of(journey)
        dates = _dates_around(now, now + DAY)
        valid = self._valid_dates(group, dates)
        for key in list(self._keys_of(journey)) if valid else ():
            code = self._code_of.get(user_stop_of(key))
            if code is not None:
                yield from self._calls(valid, key, self._values(group, key), code)
        if self.gtfs is not None:
            yield from self.gtfs.journey(journey, dates)

    def calls_later(self, key: bytes, passtime: Passtime, codes: Container[str]) -> bool:
        """Return whether a journey is planned to call at one of these stops after a passtime. key: its key in KV8."""
        journey = journey_of(key)
        keys = self._keys_of(journey)
        if passtime.provenance == "gtfs" or not keys:
            return self.gtfs is not None and self.gtfs.calls_later(passtime, codes)
        group, order = group_of(journey), int(key.rpartition(b"|")[2])
        for planned in keys:
            if int(planned.split(b"|")[5]) > order and self._code_of.get(user_stop_of(planned)) in codes:
                stop_type = self._values(group, planned).split(b"|")[2]
                if stop_type != b"INFOPOINT":
                    return True
        return False

    def first_passtimes(
        self, operator: str, line: str, direction: str, since: float, until: float
    ) -> Iterator[PlannedCall | None]:
        """Yield the first passtime of each planned journey of a line, as passtimes() does for a stop."""
        dates = _dates_around(since, until)
        for group, keys in self._journeys_of(operator, line):
            yield None
            valid = self._valid_dates(group, dates)
            for key in keys if valid else ():
                _, _, stop_type, _, of_direction, _ = self._values(group, key).split(b"|", 5)
                if stop_type == b"FIRST" and (text(of_direction) or "") == direction:
                    yield from self._journey_passtime(group, key, valid, since, until)
        if self.gtfs is not None:
            yield from self.gtfs.first_passtimes(operator, line, direction, dates, since, until)

    def patterns(
        self, operator: str, line: str, direction: str
    ) -> Generator[None, None, dict[str, dict[int, tuple[str, bool]]]]:
        """Return the patterns of a line in a direction: TimingPointCode and IsTimingStop by UserStopOrderNumber.

        Yields after each journey.
        """
        patterns: dict[str, dict[int, tuple[str, bool]]] = {}
        for group, keys in self._journeys_of(operator, line):
            yield
            for key in keys:
                code = self._code_of.get(user_stop_of(key))
                _, _, stop_type, pattern, of_direction, *_, timing, _ = texts(self._values(group, key))
                if code is not None and pattern and of_direction == direction and stop_type != "INFOPOINT":
                    patterns.setdefault(pattern, {})[int(key.split(b"|")[5])] = (code, timing == "1")
        if not patterns and self.gtfs is not None:
            patterns = yield from self.gtfs.patterns(operator, line, direction)
        return patterns

    @property
    def n_lines(self) -> int:
        """The number of lines in all directions, at most, with two directions for each of GTFS."""
        return len(self.directions) + (0 if self.gtfs is None else 2 * self.gtfs.planning.n_lines)

    def journey_size(self, journey: Journey) -> int:
        """Return the number of a journey's planned passtimes on one date."""
        return len(self._keys_of(journey))

    def line_size(self, operator: str, line: str) -> int:
        """Return the number of planned passtimes of a line, of all service levels."""
        groups = self._groups_of_line.get((operator, line), ())
        n_planned = sum(self._published[group].n_planned for group in groups)
        return n_planned if self.gtfs is None else n_planned + self.gtfs.planning.n_line_calls(operator, line)

    def line_headsign(self, operator: str, line: str, direction: str) -> str | None:
        """Return the name of a destination of a line in a direction, "" if unknown; None without such journeys."""
        key = operator, line, direction
        if key in self.directions:
            destination = self.directions[key]
            return self.destinations.get((operator, destination or ""), destination) or ""
        return None if self.gtfs is None else self.gtfs.planning.line_directions(operator, line).get(direction)

    def line_keys(self) -> Iterator[tuple[str, str, str] | None]:
        """Yield DataOwnerCode, LinePlanningNumber and LineDirection of all lines, and None after each step.

        The lines of KV7, and those of GTFS that KV7 does not have in any direction.
        """
        lines = {key[:2] for key in self.directions}
        yield from list(self.directions)
        if self.gtfs is not None:
            planning = self.gtfs.planning
            for operator, line, *_ in map(planning.line, range(planning.n_lines)):
                yield None
                if (operator, line) not in lines:
                    yield from ((operator, line, direction) for direction in planning.line_directions(operator, line))

    def _keys_of(self, journey: Journey) -> Sequence[bytes]:
        return self._published.get(group_of(journey), NO_PUBLICATION).journeys.get(journey, ())

    def _journeys_of(self, operator: str, line: str) -> Iterator[tuple[Group, Sequence[bytes]]]:
        """Yield the keys of each journey of a line, with its group, even if groups are removed meanwhile."""
        for group in list(self._groups_of_line.get((operator, line), ())):
            for keys in self._published.get(group, NO_PUBLICATION).journeys.values():
                yield group, keys

    def _values(self, group: Group, key: bytes) -> bytes:
        """Return the values of a planned passtime; null ones if it was removed after its look-up began."""
        return self._published.get(group, NO_PUBLICATION).passtimes(user_stop_of(key)).get(key, _NO_VALUES)

    def _journey_passtime(
        self, group: Group, key: bytes, dates: list[date], since: float, until: float
    ) -> Iterator[PlannedCall]:
        code = self._code_of.get(user_stop_of(key))
        if code is not None:
            yield from self._on_dates(dates, key, self._values(group, key), code, since, until)


def _dates_around(since: float, until: float) -> list[date]:
    """Return the operating dates with passtimes between two moments (epoch seconds)."""
    first = local_date(since)
    return [first + timedelta(n) for n in range(-1, (local_date(until) - first).days + 1)]
