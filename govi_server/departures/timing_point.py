"""TimingPoints: the format of their codes, and their positions."""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct
from pyproj import Transformer
from pyproj.enums import TransformDirection

_RD_X, _RD_Y = range(1, 400_000), range(200_000, 700_000)
"""Valid RD coordinates in metres: the Netherlands and its border regions."""

MAX_TIMING_POINT_CODE = 10
"""Digits of a TimingPointCode."""

TIMING_POINT_CODE_PATTERN = f"[0-9]{{1,{MAX_TIMING_POINT_CODE}}}"
"""A regular expression for a TimingPointCode: ASCII digits (docs/protocols.md, section 2.4)."""

TIMING_POINT_CODE_FORMAT = f"1 to {MAX_TIMING_POINT_CODE} digits"
"""The same in words."""

_TRANSFORMER = Transformer.from_crs("EPSG:28992", "EPSG:4326", always_xy=True)  # takes 30 ms
_CODE = re.compile(TIMING_POINT_CODE_PATTERN)
_CODES = re.compile(f"{TIMING_POINT_CODE_PATTERN}(?:,{TIMING_POINT_CODE_PATTERN})*+")


class TimingPoint(Struct, frozen=True, gc=False):
    """A stop's name and position; texts are None if unknown."""

    name: str | None
    town: str | None
    stop_area: str | None
    x: int
    y: int
    """RD coordinates (EPSG:28992) in metres; 0 if unknown."""

    @property
    def has_position(self) -> bool:
        """Whether the position is known."""
        return self.x in _RD_X and self.y in _RD_Y

    @property
    def position(self) -> tuple[float, float] | None:
        """Longitude and latitude in degrees (WGS 84); None if unknown."""
        return wgs84(self.x, self.y) if self.has_position else None


@lru_cache(maxsize=1 << 16)
def wgs84(x: int, y: int) -> tuple[float, float]:
    """Return longitude and latitude of RD coordinates in degrees, precise to 0.1 m."""
    longitude, latitude = _TRANSFORMER.transform(x, y)
    return round(longitude, 7), round(latitude, 7)


def rd(longitude: float, latitude: float) -> tuple[float, float]:
    """Return RD coordinates, in metres, of a position in degrees; infinite ones far outside of the Netherlands."""
    x, y = _TRANSFORMER.transform(longitude, latitude, direction=TransformDirection.INVERSE)
    return x, y


def is_timing_point_code(text: str) -> bool:
    """Return whether a text is a TimingPointCode: 1 to 10 ASCII digits."""
    return _CODE.fullmatch(text) is not None


def are_timing_point_codes(texts: Iterable[str]) -> bool:
    """Return whether texts without commas are all TimingPointCodes, at least one: a tenth of the time for 1,000."""
    return _CODES.fullmatch(",".join(texts)) is not None
