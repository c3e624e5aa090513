"""The OpenAPI 3.1 document of what modules declare. Pure."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from govi_server.contract import Answer, Parameter, Path

HEADERS = {
    "Age": "Seconds since it was made or, of a stale answer, since its source last spoke.",
    "Cache-Control": "How long it may be kept.",
    "Cache-Status": "What the cache had (RFC 9211); a negative ttl is a stale answer.",
    "ETag": "Stands for exactly these bytes; goes with If-None-Match.",
    "Feed-State": "How the live feed is doing: UP, RECOVERING, DOWN or UNKNOWN.",
    "Retry-After": "Seconds after which to ask again.",
}
"""Header fields that answers name."""

COMMON = (
    Answer(304, "The client has it (If-None-Match, If-Modified-Since)."),
    Answer(400, "This is no HTTP request."),
    Answer(405, "Only GET, HEAD and OPTIONS are answered; Allow names them."),
    Answer(406, "Thirteen seconds were over."),
    Answer(412, "It has changed (If-Match, If-Unmodified-Since)."),
    Answer(414, "The request line is too long."),
    Answer(429, "Too many requests from one client.", headers=("Retry-After",)),
    Answer(431, "The header is too long."),
    Answer(500, "Something went wrong here."),
    Answer(501, "The method is not known here."),
    Answer(503, "The server has too much to do.", headers=("Retry-After",)),
)
"""What any path may answer."""

_BODILESS = 304


def document(paths: Iterable[Path], title: str, version: str, description: str) -> dict[str, Any]:
    """Write the document."""
    paths = list(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "tags": [{"name": section} for section in dict.fromkeys(path.section for path in paths)],
        "paths": {path.template: dict(_methods(path)) for path in paths},
    }


def _methods(path: Path) -> Iterator[tuple[str, Any]]:
    operation: dict[str, Any] = {
        "tags": [path.section],
        "summary": path.summary,
        "parameters": [_parameter(one) for one in path.parameters],
    }
    if path.description:
        operation["description"] = path.description
    yield "get", {**operation, "operationId": f"get {path.template}", "responses": responses(path)}
    without = {status: {**said} for status, said in responses(path).items()}
    for said in without.values():
        said.pop("content", None)
    yield "head", {**operation, "operationId": f"head {path.template}", "responses": without}


def responses(path: Path) -> dict[str, Any]:
    """Describe the answers of a path by status, those that any path may give among them."""
    told: dict[str, Any] = {}
    for answer in sorted((*path.answers, *COMMON), key=lambda one: one.status):
        known = told.setdefault(str(answer.status), {"description": answer.description})
        if answer.description not in known["description"]:
            known["description"] += f" Or: {answer.description}"
        if answer.status != _BODILESS:
            content = known.setdefault("content", {})
            content.setdefault(answer.content_type, {"schema": answer.schema or {"type": "string"}})
        for name in answer.headers:
            known.setdefault("headers", {})[name] = {"description": HEADERS[name], "schema": {"type": "string"}}
    return told


def _parameter(one: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": one.name,
        "in": one.place,
        "required": one.required,
        "description": one.description,
        "schema": dict(one.kind.schema),
    }
    return told if one.example is None else {**told, "example": one.example}


def phrase(status: int) -> str:
    """Give the words of a status."""
    return HTTPStatus(status).phrase
