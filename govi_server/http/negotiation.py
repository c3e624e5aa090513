"""Content negotiation: choose a coding, media type or language by weight (RFC 9110 section 12.5). Pure."""

import re
from collections.abc import Sequence

from govi_server.http.request import TOKEN, Environ, ascii_lower

_QVALUE = r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?"  # RFC 9110 section 12.4.2
_CODING = re.compile(rf"[ \t]*({TOKEN.decode()})[ \t]*(?:;[ \t]*[Qq]=({_QVALUE})[ \t]*)?")


def prefers_gzip(env: Environ) -> bool:
    """Return whether a client prefers gzip to no coding (RFC 9110 section 12.5.3).

    It does if the weight of gzip, or else of *, is above 0 and not below that of identity.
    """
    weights: dict[str, float] = {}
    for member in ",".join(env.get_all("accept-encoding", [])).split(","):
        if match := _CODING.fullmatch(member):
            weights[ascii_lower(match[1])] = float(match[2] or 1)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


_MEMBER = re.compile(r"[ \t]*([^;, \t]+)[ \t]*((?:;[^,]*)?)")
_WEIGHT = re.compile(rf";[ \t]*[Qq]=({_QVALUE})[ \t]*(?:;|$)")


def weights(field: str) -> dict[str, float]:
    """Parse a field such as Accept; return weights by member in lower case.

    Invalid members are ignored; an invalid weight counts as 1.
    """
    parsed: dict[str, float] = {}
    for member in field.split(","):
        if match := _MEMBER.fullmatch(member):
            weight = _WEIGHT.search(match[2])
            parsed[match[1].lower()] = float(weight[1]) if weight else 1.0
    return parsed


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
