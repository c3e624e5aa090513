"""What a client would rather have: types and languages by their weights (RFC 9110 section 12.5). Pure."""

import re
from collections.abc import Sequence

from govi_server.http.request import Environ, ascii_lower

_CODING = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)


def prefers_gzip(env: Environ) -> bool:
    """Tell whether a client would rather have gzip than the plain bytes (RFC 9110 section 12.5.3).

    Only one that names it, or *, does; with a weight of 0, or below that of identity, it does not.
    """
    weights: dict[str, float] = {}
    for member in ",".join(env.get_all("accept-encoding", [])).split(","):
        if found := _CODING.fullmatch(member):
            weights[ascii_lower(found[1])] = float(found[2] or 1)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


_MEMBER = re.compile(r"[ \t]*([^;, \t]+)[ \t]*((?:;[^,]*)?)")
_WEIGHT = re.compile(r";[ \t]*[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)")


def weights(field: str) -> dict[str, float]:
    """Read a field such as Accept: the weight of each member, in lower case; what cannot be read is passed over."""
    read: dict[str, float] = {}
    for member in field.split(","):
        if found := _MEMBER.fullmatch(member):
            weight = _WEIGHT.search(found[2])
            read[found[1].lower()] = float(weight[1]) if weight else 1.0
    return read


def best_type(accept: str, offered: Sequence[str]) -> str:
    """Choose a media type; the first for a client that wants none.

    Of those that it wants equally the one that it names goes first, in its order: who says "application/json, */*"
    takes anything, and would rather have JSON.
    """
    wanted = weights(accept) or {"*/*": 1.0}
    named = [kind for kind in wanted if kind in offered]

    def weight(kind: str) -> float:
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")  # the closest one counts
        return next((wanted[one] for one in ranges if one in wanted), 0.0)

    return max((*named, *offered), key=weight)


def best_language(accept: str, offered: Sequence[str]) -> str:
    """Choose a language, two letters, whose regions are all the same here; the first for a client that wants none."""
    wanted: dict[str, float] = {}
    for tag, weight in weights(accept).items():
        language = tag.partition("-")[0]
        wanted[language] = max(weight, wanted.get(language, 0.0))
    return max(offered, key=lambda language: wanted.get(language, wanted.get("*", 0.0)))
