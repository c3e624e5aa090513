"""The types of settings: what a configured number may be."""

from typing import Annotated

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Bytes = Annotated[int, Meta(ge=256, le=2**40)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
