"""A parser of event streams, literally after the algorithm of the HTML standard, section 9.2.6."""

import re
from typing import NamedTuple


class StreamEvent(NamedTuple):
    """An event as a browser dispatches it."""

    type: str
    data: str
    last_event_id: str
    fields: tuple[str, ...]
    """The names of the fields of its block, in order."""


def parse_event_stream(stream: bytes) -> list[StreamEvent]:
    """Return the events of a stream. Raises ValueError for a block of fields that dispatches no event.

    The standard permits such a block, but some clients report it as an empty event.
    """
    events = []
    event_type = data = last_event_id = ""
    fields: list[str] = []
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    for line in re.split("\r\n|\n|\r", text)[:-1]:
        if not line:
            if data:
                events.append(StreamEvent(event_type or "message", data[:-1], last_event_id, tuple(fields)))
            elif fields:
                raise ValueError(f"block without data: {fields}")
            event_type, data, fields = "", "", []
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        fields.append(name)
        match name:
            case "event":
                event_type = value
            case "data":
                data += value + "\n"
            case "id" if "\0" not in value:
                last_event_id = value
            case "retry" if re.fullmatch("[0-9]+", value):
                pass
            case _:
                raise ValueError(f"invalid field: {line!r}")
    return events
