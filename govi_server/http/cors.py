"""Header fields for cross-origin requests (CORS, Fetch standard): any site may read any public response."""

OVAPI_HEADERS = (("Access-Control-Allow-Headers", "X-Requested-With,Content-Type"),)
"""Header fields that OVapi sends with every response (docs/protocols.md, section 3)."""


def public_headers(*module_fields: str) -> dict[str, str]:
    """Return the header fields of every response of a public server (docs/protocols.md, sections 1.2 and 1.4).

    module_fields: names of the URL modules' own response fields that scripts may read.
    """
    exposed = sorted(("Age", "Cache-Status", "ETag", "Retry-After", *module_fields))
    return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": ", ".join(exposed)}


def preflight_headers(allow: str) -> dict[str, str]:
    """Return the header fields of the response to a preflight request.

    allow: the allowed methods, as in Allow.
    """
    return {
        "Access-Control-Allow-Methods": allow,
        "Access-Control-Allow-Headers": ", ".join(
            ("X-Requested-With", "Content-Type", "Cache-Control", "If-None-Match", "If-Modified-Since")
        ),
        "Access-Control-Max-Age": "86400",
    }
