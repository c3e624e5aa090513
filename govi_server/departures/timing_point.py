"""Timing points: the form of their codes, their places."""

import re
from dataclasses import dataclass
from functools import lru_cache

from pyproj import Transformer

_RD_X, _RD_Y = range(1, 400_000), range(200_000, 700_000)
"""RD coordinates in metres of the Netherlands and some way across their borders: no other is a stop's."""


@dataclass(frozen=True, slots=True)
class TimingPoint:
    """A stop: where it is."""

    name: str | None
    town: str | None
    stop_area: str | None
    x: int
    y: int
    """RD coordinates (EPSG:28992) in metres; 0 is none."""

    @property
    def is_placed(self) -> bool:
        """Whether it is known where it is."""
        return self.x in _RD_X and self.y in _RD_Y

    @property
    def position(self) -> tuple[float, float] | None:
        """Longitude and latitude in degrees (WGS 84); None if it is not known."""
        return wgs84(self.x, self.y) if self.is_placed else None


@lru_cache(maxsize=1 << 16)
def wgs84(x: int, y: int) -> tuple[float, float]:
    """Give longitude and latitude of RD coordinates, in degrees to 0.1 m."""
    longitude, latitude = _transformer().transform(x, y)
    return round(longitude, 7), round(latitude, 7)


@lru_cache(maxsize=1)
def _transformer() -> Transformer:
    return Transformer.from_crs("EPSG:28992", "EPSG:4326", always_xy=True)


CODE_PATTERN = "[0-9]{1,10}"
"""A TimingPointCode as a regular expression: 1 to 10 ASCII digits (docs/protocols.md 2.4, and trap 5)."""

_CODE = re.compile(CODE_PATTERN)


def is_timing_point_code(text: str) -> bool:
    """Return whether a text is a TimingPointCode."""
    return _CODE.fullmatch(text) is not None
