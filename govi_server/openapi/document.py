"""The OpenAPI 3.1 document of what modules declare."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from importlib.resources import files
from typing import Any, get_args

from govi_server.http.parameters import Json, Parameter
from govi_server.kv78turbo.subscriber import State
from govi_server.openapi.description import Operation, ResponseSpec
from govi_server.openapi.schema import TEXT, arrays, mappings, objects, words

_SECONDS: Json = {"type": "integer", "minimum": 0}
RESPONSE_FIELDS: dict[str, tuple[str, Json]] = {
    "Age": ("Seconds since it was made or, of a stale answer, since its source last spoke.", _SECONDS),
    "Allow": ("The methods that are answered.", TEXT),
    "Cache-Control": (
        "How long it may be kept.",
        {"type": "string", "pattern": "^(?:no-store|(?:public, )?(?:no-cache|max-age=[0-9]+(?:, immutable)?))$"},
    ),
    "Cache-Status": (
        "What the cache had (RFC 9211); a negative ttl is a stale answer.",
        {"type": "string", "pattern": "^govi-cache; (?:hit|fwd=miss(?:; collapsed)?)(?:; ttl=-?[0-9]+)?$"},
    ),
    "Content-Language": ("The language.", TEXT),
    "ETag": (
        "Stands for exactly these bytes; goes with If-None-Match.",
        {"type": "string", "pattern": '^"[0-9a-f]{16}"$'},
    ),
    "Feed-State": ("How the live feed is doing.", words(get_args(State))),
    "Last-Modified": ("When it was made; goes with If-Modified-Since.", TEXT),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 1}),
}
"""Header fields that answers name, each with what it tells and its schema."""

COMMON = (
    ResponseSpec(304, "The client has it (If-None-Match, If-Modified-Since)."),
    ResponseSpec(400, "This is no HTTP request."),
    ResponseSpec(405, "Only GET, HEAD and OPTIONS are answered; Allow names them.", headers=("Allow",)),
    ResponseSpec(406, "Thirteen seconds were over."),
    ResponseSpec(412, "It has changed (If-Match, If-Unmodified-Since)."),
    ResponseSpec(414, "The request line is too long."),
    ResponseSpec(429, "Too many requests from one client.", headers=("Retry-After",)),
    ResponseSpec(431, "The header is too long."),
    ResponseSpec(500, "Something went wrong here."),
    ResponseSpec(501, "The method is not known here."),
    ResponseSpec(503, "The server has too much to do.", headers=("Retry-After",)),
)
"""What any path may answer."""

DOCUMENT = objects(
    {
        "openapi": words(["3.1.0"]),
        "info": objects({"title": TEXT, "version": TEXT, "description": TEXT}),
        "servers": arrays(objects({"url": TEXT})),
        "tags": arrays(objects({"name": TEXT})),
        "paths": mappings(mappings({"type": "object"})),
    }
)
"""What document() writes, as a schema."""

JSON = "application/json"

ANSWERED: dict[str, tuple[str, str]] = json.loads(files("govi_server.openapi").joinpath("examples.json").read_bytes())
"""What was answered to examples in the made-up town, by their keys: type and body. make examples writes it."""

_BODILESS = 304


def document(paths: Iterable[Operation], title: str, version: str, description: str) -> dict[str, Any]:
    """Write the document."""
    paths = list(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "tags": [{"name": section} for section in dict.fromkeys(path.section for path in paths)],
        "paths": {path.template: dict(_methods(path)) for path in paths},
    }


def _methods(path: Operation) -> Iterator[tuple[str, Any]]:
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


def responses(path: Operation) -> dict[str, Any]:
    """Describe the answers of a path by status, those that any path may give among them."""
    told: dict[str, Any] = {}
    always: dict[int, set[str]] = {}
    answers = sorted((*path.answers, *_common(path)), key=lambda one: one.status)
    for answer in answers:
        always.setdefault(answer.status, set(answer.headers)).intersection_update(answer.headers)
    for answer in answers:
        known = told.setdefault(str(answer.status), {"description": answer.description})
        if answer.description not in known["description"]:
            known["description"] += f" Or: {answer.description}"
        if answer.status != _BODILESS:
            content = known.setdefault("content", {})
            of_type = content.setdefault(answer.content_type, {"schema": answer.schema or TEXT})
            for example in path.examples:
                kind, body = ANSWERED.get(example.key, ("", ""))
                if (example.status, kind) == (answer.status, answer.content_type):
                    value = json.loads(body) if kind == JSON else body
                    of_type.setdefault("examples", {})[example.says] = {"value": value}
        for name in (*answer.headers, *answer.optional_headers):
            description, schema = RESPONSE_FIELDS[name]
            required = name in always[answer.status]
            header = {"description": description, "required": required, "schema": schema}
            known.setdefault("headers", {})[name] = header
    return told


def _common(path: Operation) -> Iterator[ResponseSpec]:
    """Give what any path may answer; only what has a tag is ever unchanged, and then all is said but the body."""
    found = next(answer for answer in path.answers if answer.status == 200)
    for answer in COMMON:
        if answer.status == 304:
            answer = replace(answer, headers=found.headers, optional_headers=found.optional_headers)
        if "ETag" in found.headers or answer.status not in (304, 412):
            yield answer


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
