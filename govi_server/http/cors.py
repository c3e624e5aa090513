"""Header fields for cross-origin requests (CORS, Fetch standard): any site may read any public response."""

from govi_server.http.request import Environ

OVAPI_HEADERS = (("Access-Control-Allow-Headers", "X-Requested-With,Content-Type"),)
"""Header fields that OVapi sends with every response (docs/protocols.md, section 3)."""

REQUEST_FIELDS = (
    "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Match", "If-Modified-Since",
    "If-None-Match", "If-Unmodified-Since", "Last-Event-ID", "Pragma", "X-Requested-With",
)  # fmt: skip
"""Request fields that scripts may send: those that the program reads, and those that HTTP libraries add."""

RESPONSE_FIELDS = ("Age", "Allow", "Cache-Status", "ETag", "Retry-After")
"""Response fields that scripts may read, besides those that the Fetch standard always permits."""


def public_headers(*module_fields: str) -> dict[str, str]:
    """Return the header fields of every response of a public server (docs/protocols.md, sections 1.2 and 1.4).

    module_fields: names of the URL modules' own response fields that scripts may read.
    """
    exposed = ", ".join(sorted((*RESPONSE_FIELDS, *module_fields)))
    return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": exposed}


def is_preflight(env: Environ) -> bool:
    """Return whether a request is a preflight request."""
    return env["request_method"] == "OPTIONS" and "access-control-request-method" in env


def preflight_headers(allow: str) -> dict[str, str]:
    """Return the header fields of the response to a preflight request.

    allow: the allowed methods, as in Allow.
    """
    return {
        "Access-Control-Allow-Methods": allow,
        "Access-Control-Allow-Headers": ", ".join(REQUEST_FIELDS),
        "Access-Control-Max-Age": "86400",
    }
