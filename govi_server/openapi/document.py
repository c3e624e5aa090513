"""The OpenAPI 3.1 document of the modules' operations."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from importlib.resources import files
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from govi_server.http.error_responses import HTML, JSON, PROBLEM, TEXT, Problem
from govi_server.http.parameters import Parameter
from govi_server.openapi.description import HeaderField, Operation, ResponseSpec
from govi_server.openapi.schema import Schemas

_CACHE_CONTROL = "^(?:no-store|(?:public, )?(?:no-cache|max-age=[0-9]+(?:, immutable)?))$"
_CACHE_STATUS = "^govi-cache; (?:hit|fwd=miss(?:; collapsed)?)(?:; ttl=-?[0-9]+)?$"

HEADER_FIELDS: Mapping[str, HeaderField] = {
    "Age": HeaderField(
        "Seconds since the response was made or, if it is stale, since its source last sent data.",
        Annotated[int, Meta(ge=0)],
    ),
    "Allow": HeaderField("The supported methods.", str),
    "Cache-Control": HeaderField(
        "How long the response may be cached.", Annotated[str, Meta(pattern=_CACHE_CONTROL)]
    ),
    "Cache-Status": HeaderField(
        "How the cache handled the request (RFC 9211); a negative ttl means a stale response.",
        Annotated[str, Meta(pattern=_CACHE_STATUS)],
    ),
    "Content-Language": HeaderField("The language of the response.", str),
    "ETag": HeaderField(
        "Identifies the exact bytes of the response; send it in If-None-Match.",
        Annotated[str, Meta(pattern='^"[0-9a-f]{16}"$')],
    ),
    "Last-Modified": HeaderField("When the response was made; send it in If-Modified-Since.", str),
    "Retry-After": HeaderField("Seconds to wait before the next request.", Annotated[int, Meta(ge=1)]),
}
"""Header fields of any response. Fields of a source, such as Feed-State, are added by the caller of document()."""

COMMON_RESPONSES = (
    ResponseSpec(304, "The client's copy is current (If-None-Match, If-Modified-Since)."),
    ResponseSpec(400, "The request is not valid HTTP."),
    ResponseSpec(405, "Only GET, HEAD and OPTIONS are supported; Allow lists the methods.", headers=("Allow",)),
    ResponseSpec(406, "The deadline of 13 seconds has passed."),
    ResponseSpec(412, "The representation has changed (If-Match, If-Unmodified-Since)."),
    ResponseSpec(413, "The request body is too large."),
    ResponseSpec(414, "The request line is too long."),
    ResponseSpec(421, "The request target is an https URL, but the connection has no TLS."),
    ResponseSpec(429, "The client has sent too many requests.", headers=("Retry-After",)),
    ResponseSpec(431, "The header section is too large."),
    ResponseSpec(500, "An internal error occurred."),
    ResponseSpec(501, "The method is unknown."),
    ResponseSpec(503, "The server is overloaded.", headers=("Retry-After",)),
)
"""Responses of all paths."""

EXAMPLE_RESPONSES: dict[str, tuple[str, str]] = json.loads(
    files("govi_server.openapi").joinpath("examples.json").read_bytes()
)
"""The responses to the examples, from the demo's town, by Example.key: content type and body (make examples)."""


class Info(Struct):
    """The API's title, version and description."""

    title: str
    version: str
    description: str


class Server(Struct):
    """The address of the API."""

    url: str


class Tag(Struct):
    """A section of the documentation."""

    name: str


class Components(Struct):
    """Shared schemas, by name."""

    schemas: dict[str, dict[str, Any]]


class OpenApi(Struct):
    """An OpenAPI 3.1 document."""

    openapi: Literal["3.1.0"]
    info: Info
    servers: list[Server]
    tags: list[Tag]
    paths: dict[str, dict[str, dict[str, Any]]]
    """Operations by method, by path."""
    components: Components


def document(operations: Iterable[Operation], info: Info, header_fields: Mapping[str, HeaderField]) -> OpenApi:
    """Return the document. header_fields: those named by the operations' responses."""
    operations = list(operations)
    schemas = Schemas()
    paths: dict[str, dict[str, dict[str, Any]]] = {}
    nouns: Counter[str] = Counter()
    for operation in operations:
        nouns[operation.noun] += 1
        number = nouns[operation.noun]  # above 1 for modules whose names differ only in hyphens or the first letter
        noun = operation.noun if number == 1 else f"{operation.noun}{number}"
        paths[operation.template] = dict(_methods(operation, noun, schemas, header_fields))
    return OpenApi(
        openapi="3.1.0",
        info=info,
        servers=[Server("/")],
        tags=[Tag(section) for section in dict.fromkeys(operation.section for operation in operations)],
        paths=paths,
        components=Components(schemas.components),
    )


def _methods(
    operation: Operation, noun: str, schemas: Schemas, fields: Mapping[str, HeaderField]
) -> Iterator[tuple[str, dict[str, Any]]]:
    common: dict[str, Any] = {
        "tags": [operation.section],
        "summary": operation.summary,
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
    }
    if operation.description:
        common["description"] = operation.description
    responses = _responses(operation, schemas, fields)
    yield "get", {**common, "operationId": f"get{noun}", "responses": responses}
    without_content = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in responses.items()
    }
    yield "head", {**common, "operationId": f"head{noun}", "responses": without_content}


def _responses(
    operation: Operation, schemas: Schemas, fields: Mapping[str, HeaderField]
) -> dict[str, dict[str, Any]]:
    """Return the Response Objects of an operation by status, including the common ones."""
    specs = sorted((*operation.responses, *_common_responses(operation)), key=lambda spec: spec.status)
    always: dict[int, set[str]] = {}
    for spec in specs:
        always.setdefault(spec.status, set(spec.headers)).intersection_update(spec.headers)
    responses: dict[str, dict[str, Any]] = {}
    for spec in specs:
        response = responses.setdefault(str(spec.status), {"description": spec.description})
        if spec.description not in response["description"]:
            response["description"] += f" Or: {spec.description}"
        if spec.status != HTTPStatus.NOT_MODIFIED:
            content = response.setdefault("content", {})
            for variant in _variants(spec, operation.has_problems):
                schema = schemas.of(variant.body)
                described = content.setdefault(
                    variant.content_type, {"schema": schema, **_examples(operation, variant)}
                )
                if described["schema"] != schema:
                    described["schema"] = {"anyOf": [described["schema"], schema]}
        for name in (*spec.headers, *spec.optional_headers, *(("Content-Language",) if _is_message(spec) else ())):
            response.setdefault("headers", {})[name] = {
                "description": fields[name].description,
                "required": name in always[spec.status],
                "schema": schemas.of(fields[name].type),
            }
    for response in responses.values():
        if "content" in response:  # generators of clients take the first type
            response["content"] = dict(sorted(response["content"].items(), key=lambda item: "json" not in item[0]))
    return responses


def _is_message(spec: ResponseSpec) -> bool:
    """Return whether a response is an error that http.error_responses formats."""
    return spec.status >= HTTPStatus.BAD_REQUEST and (spec.content_type, spec.body) in (
        (TEXT, str),
        (PROBLEM, Problem),
    )


def _variants(spec: ResponseSpec, has_problems: bool) -> Iterator[ResponseSpec]:
    """Yield a response in each content type: an error as text, as a page and as problem details."""
    if not _is_message(spec):
        yield spec
        return
    yield replace(spec, content_type=TEXT, body=str)
    yield replace(spec, content_type=HTML, body=str)
    if has_problems:
        yield replace(spec, content_type=PROBLEM, body=Problem)


def _examples(operation: Operation, spec: ResponseSpec) -> dict[str, Any]:
    """Return the examples of a response as a member of its Media Type Object; {} without examples."""
    examples = {}
    for example in operation.examples:
        content_type, body = EXAMPLE_RESPONSES.get(example.key, ("", ""))
        if (example.status, content_type) == (spec.status, spec.content_type):
            parse = _PARSERS.get(content_type, str)
            examples[example.title] = {"value": parse(body)}
    return {"examples": examples} if examples else {}


def _first_event(stream: str) -> dict[str, str | int]:
    """Return the first event of an event stream by field, as the schema describes it."""
    event: dict[str, str | int] = {}
    for line in stream.partition("\n\n")[0].split("\n"):
        name, _, value = line.partition(": ")
        event[name] = int(value) if name == "retry" else f"{event[name]}\n{value}" if name in event else value
    return event


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    JSON: json.loads,
    PROBLEM: json.loads,
    "text/event-stream": _first_event,
}
"""From a body to the value that its schema describes, by content type; str for all others."""


def _common_responses(operation: Operation) -> Iterator[ResponseSpec]:
    """Yield the common responses; those to preconditions only for an operation with an ETag.

    A 304 has the same header fields as the 200.
    """
    success = next(spec for spec in operation.responses if spec.status == HTTPStatus.OK)
    for spec in COMMON_RESPONSES:
        if spec.status == HTTPStatus.NOT_MODIFIED:
            spec = replace(spec, headers=success.headers, optional_headers=success.optional_headers)
        if "ETag" in success.headers or spec.status not in (HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED):
            yield spec


def _parameter(parameter: Parameter) -> dict[str, Any]:
    description: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": dict(parameter.type.schema),
    }
    return description if parameter.example is None else {**description, "example": parameter.example}


def phrase(status: int) -> str:
    """Return the reason phrase of a status."""
    return HTTPStatus(status).phrase
