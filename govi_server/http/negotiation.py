"""Content negotiation: choose a coding, media type or language by weight (RFC 9110 section 12.5). Pure."""

import re
from collections.abc import Sequence

from govi_server.http.request import Environ, ascii_lower

_MEMBER = re.compile(r"[ \t]*([^;, \t]+)[ \t]*((?:;[^,]*)?)")
_WEIGHT = re.compile(r";[ \t]*[Qq][ \t]*=([^;]*)")
_QVALUE = re.compile(r"(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*")  # RFC 9110 section 12.4.2


def weights(field: str) -> dict[str, float]:
    """Parse a field such as Accept; return weights by member in lower case.

    Invalid members, and those with an invalid weight, are ignored.
    """
    parsed: dict[str, float] = {}
    for member in field.split(","):
        if match := _MEMBER.fullmatch(member):
            weight = _WEIGHT.search(match[2])
            qvalue = _QVALUE.fullmatch(weight[1] if weight else "1")
            if qvalue:
                parsed[ascii_lower(match[1])] = float(qvalue[1])
    return parsed


def prefers_gzip(env: Environ) -> bool:
    """Return whether a client prefers gzip to no coding (RFC 9110 section 12.5.3).

    It does if the weight of gzip, or else of *, is above 0 and not below that of identity.
    """
    accepted = weights(",".join(env.get_all("accept-encoding", [])))
    gzip = accepted.get("gzip", accepted.get("x-gzip", accepted.get("*", 0.0)))
    return gzip > 0 and gzip >= accepted.get("identity", 0.0)


def best_type(accept: str, offered: Sequence[str]) -> str:
    """Return the media type that a client prefers; the first offered if it accepts none of them.

    Among types of equal weight, those that Accept names precede the others, in its order: "application/json, */*"
    accepts anything and prefers JSON.
    """
    accepted = weights(accept) or {"*/*": 1.0}
    named = [media_type for media_type in accepted if media_type in offered]

    def weight(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")  # the most specific range applies
        return next((accepted[range_] for range_ in ranges if range_ in accepted), 0.0)

    return max((*named, *offered), key=weight)


def best_language(accept: str, offered: Sequence[str]) -> str:
    """Return the two-letter language that a client prefers, in any region; the first offered if it accepts none."""
    accepted: dict[str, float] = {}
    for tag, weight in weights(accept).items():
        language = tag.partition("-")[0]
        accepted[language] = max(weight, accepted.get(language, 0.0))
    return max(offered, key=lambda language: accepted.get(language, accepted.get("*", 0.0)))
