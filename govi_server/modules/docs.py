"""GET /openapi.json and /docs: the operations that the modules describe, for programs and for developers."""

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.client_limits import UNLIMITED
from govi_server.http.error_responses import JSON, PROBLEM
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Enum
from govi_server.http.request import Environ
from govi_server.kv78turbo.subscriber import State
from govi_server.openapi.description import SECTIONS, Example, HeaderField, IDocumented, Operation, ResponseSpec
from govi_server.openapi.document import (
    COMMON_RESPONSES,
    EXAMPLE_RESPONSES,
    HEADER_FIELDS,
    Info,
    OpenApi,
    document,
    phrase,
)
from govi_server.pages.assets import PAGE_HEADERS, TEMPLATES
from govi_server.pages.texts import TEXTS
from govi_server.settings import AccessSettings
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

DOCS_MAX_AGE = 300
"""Seconds for which clients may cache the documentation."""

ADDRESS = "http://localhost:8080"
"""The address in examples unless the server knows its own."""

TITLE = "govi-cache"

DESCRIPTION = (
    "Departures of public transport stops, served from memory. All requests are GET requests (HEAD and OPTIONS also "
    "work) and need no key; pages of any origin may read the responses. Unknown parameters are ignored. "
    "A TimingPointCode has 1 to 10 digits; leading zeros are significant."
)

ALL_HEADER_FIELDS = {
    **HEADER_FIELDS,
    "Data-Source": HeaderField("demo if all departures are fictional; otherwise absent.", str),
    "Feed-State": HeaderField("The state of the live feed.", State),
}
"""The header fields of all responses: the server's, the demo's and the live feed's."""

HTML = "text/html; charset=utf-8"

_PAGE = TEMPLATES.get_template("docs.html")
_GAP = "<!-- gap -->"
"""Stands for the note of a demo; escaped text cannot contain it."""


class Documentation:
    """The documentation of all operations. modules: returns the modules. limits: the limits per client.

    is_demo: returns whether the page says that all departures are fictional. address: of the examples' requests.
    """

    def __init__(
        self,
        modules: Callable[[], Iterable[object]],
        version: str,
        limits: AccessSettings = UNLIMITED,
        is_demo: Callable[[], bool] = lambda: False,
        address: str = ADDRESS,
    ) -> None:
        self._modules = modules
        self._is_demo = is_demo
        self._pages: dict[bool, bytes] = {}
        self._limits = limits
        self._address = address.rstrip("/")
        self.version = version

    @cached_property
    def operations(self) -> list[Operation]:
        """The operations, grouped by section."""
        operations: list[Operation] = []
        for module in self._modules():
            if IDocumented.providedBy(module):
                operations.extend(IDocumented(module).describe())
        return sorted(operations, key=lambda operation: (SECTIONS.index(operation.section), operation.template))

    @cached_property
    def json(self) -> bytes:
        """The OpenAPI document."""
        info = Info(TITLE, self.version, DESCRIPTION)
        return msgspec.json.encode(document(self.operations, info, ALL_HEADER_FIELDS))

    @property
    def page(self) -> bytes:
        """The HTML page."""
        is_demo = self._is_demo()
        if is_demo not in self._pages:
            note = f'<p class="note">{TEXTS["en"]["demo"]}</p>\n' if is_demo else ""
            self._pages[is_demo] = note.join(self._parts).encode()
        return self._pages[is_demo]

    @cached_property
    def _parts(self) -> list[str]:
        """The page before and after the note of a demo; rendering it takes tens of milliseconds."""
        sections: dict[str, list[dict[str, Any]]] = {}
        for operation in self.operations:
            sections.setdefault(operation.section, []).append(_operation(operation, self._address))
        return _PAGE.render(
            description=DESCRIPTION,
            address=self._address,
            is_own_address=self._address != ADDRESS,
            demo=Markup(_GAP),
            limits=self._limits,
            max_age=MAX_AGE,
            sections=sections,
            common=[_response(spec) for spec in COMMON_RESPONSES],
            fields={name: field.description for name, field in ALL_HEADER_FIELDS.items()},
            version=f"{TITLE} {self.version}",
        ).split(_GAP)


def _operation(operation: Operation, address: str) -> dict[str, Any]:
    """Return the page's content about an operation. address: of the examples' requests."""
    anchor = operation.template.strip("/").replace("/", "-").replace("{", "").replace("}", "")
    return {
        "path": operation.template,
        "anchor": anchor or "front",
        "summary": operation.summary,
        "description": operation.description,
        "link": _link(operation),
        "parameters": [
            {
                "name": parameter.name,
                "description": parameter.description,
                "label": "Values" if isinstance(parameter.type, Enum) else "Type",
                "kind": str(parameter.type),
                "required": parameter.required,
            }
            for parameter in operation.parameters
        ],
        "responses": [_response(spec) for spec in operation.responses],
        "examples": [_example(example, address) for example in operation.examples],
    }


def _link(operation: Operation) -> str:
    """Return a path and query to try, with the examples of all required parameters."""
    path = operation.template
    for parameter in operation.parameters:
        if parameter.place == "path" and parameter.example is not None:
            path = path.replace(f"{{{parameter.name}}}", str(parameter.example))
    query = "&".join(
        f"{parameter.name}={quote(str(parameter.example))}" for parameter in operation.query if parameter.required
    )
    return f"{path}?{query}" if query else path


def _example(example: Example, address: str) -> dict[str, str]:
    """Return a request as a curl command, and its response; JSON is indented."""
    content_type, body = EXAMPLE_RESPONSES.get(example.key, ("", ""))
    accept = f" -H 'Accept: {example.accept}'" if example.accept else ""
    unbuffered = " -N" if example.accept == "text/event-stream" else ""
    is_json = content_type in (JSON, PROBLEM)
    return {
        "title": example.title,
        "command": f"curl{unbuffered}{accept} '{address}{example.url}'",
        "status": f"{example.status} {phrase(example.status)}",
        "content_type": content_type,
        "body": json.dumps(json.loads(body), indent=2, ensure_ascii=False) if is_json else body.rstrip(),
    }


def _response(spec: ResponseSpec) -> dict[str, str]:
    fields = ", ".join((*spec.headers, *(f"{name} (optional)" for name in spec.optional_headers)))
    return {
        "status": f"{spec.status} {phrase(spec.status)}",
        "description": spec.description,
        "form": f"{spec.content_type}; fields: {fields}" if fields else spec.content_type,
    }


@implementer(IWebModule, IDocumented)
class DocsModule(Service):
    """Serves the documentation in one format. content: returns its bytes."""

    def __init__(self, name: str, noun: str, summary: str, content_type: str, content: Callable[[], bytes]) -> None:
        self.name = name
        self._noun = noun
        self.content_type = content_type
        self.content = content
        self._summary = summary
        self._representations: dict[tuple[bool, bytes], Representation] = {}

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "DocsHandler":
        """Return the handler of one request."""
        return DocsHandler(self, request_handler, env)

    def startService(self) -> None:
        """Make the documentation, which takes tens of milliseconds, before the first request."""
        super().startService()
        for compressed in (False, True):
            self.representation(compressed)

    def representation(self, compressed: bool) -> Representation:
        """Return the documentation, gzip or plain. It changes once at most: a feed may turn out to be fictional."""
        key = compressed, self.content()
        if key not in self._representations:
            self._representations[key] = make_representation(key[1], self.content_type, compressed)
        return self._representations[key]

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        media_type = self.content_type.partition(";")[0]
        body = OpenApi if media_type == JSON else str
        responses = (ResponseSpec(200, "The documentation.", media_type, body, ("Cache-Control", "ETag")),)
        return [Operation(f"/{self.name}", self._summary, responses, section="Pages", noun=self._noun)]


class DocsHandler(WebHandler):
    """Handles a request for the documentation."""

    def __init__(self, module: DocsModule, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the documentation."""
        self.mark("lookup")
        if self.env["path_info"].removesuffix("/") != f"/{self._module.name}":
            self.request_handler.send_not_found()
            return
        representation = self._module.representation(prefers_gzip(self.env))
        self.mark("render")
        page_headers = PAGE_HEADERS if self._module.content_type == HTML else ()
        headers = (*page_headers, ("Cache-Control", f"public, max-age={DOCS_MAX_AGE}"))
        self.send_representation(CachedResponse(representation, headers, "none"))


def openapi_modules(documentation: Documentation) -> list[DocsModule]:
    """Return the modules of both formats."""
    return [
        DocsModule("openapi.json", "OpenApi", "This documentation for programs", JSON, lambda: documentation.json),
        DocsModule("docs", "Docs", "This documentation as a page", HTML, lambda: documentation.page),
    ]
