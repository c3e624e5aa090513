"""GET /openapi.json and /docs: the documentation that the modules' operations make, for programs and for people."""

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from html import escape
from string import Template
from urllib.parse import quote

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.client_limits import UNLIMITED
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Parameter
from govi_server.http.request import Environ
from govi_server.kv78turbo.subscriber import State
from govi_server.openapi.description import SECTIONS, Example, HeaderField, IDocumented, Operation, ResponseSpec
from govi_server.openapi.document import (
    COMMON_RESPONSES,
    EXAMPLE_RESPONSES,
    HEADER_FIELDS,
    JSON,
    Info,
    OpenApi,
    document,
    phrase,
)
from govi_server.pages.assets import PAGE_HEADERS, html
from govi_server.settings import AccessSettings
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

DOCS_MAX_AGE = 300
"""Seconds for which a client may cache it."""

TITLE = "govi-cache"

DESCRIPTION = (
    "Departures of public-transport stops, from memory. All requests are GET; HEAD and OPTIONS work, too. No key is "
    "required, and pages of other sites may read the responses (CORS). Unknown parameters are ignored. "
    "A TimingPointCode is 1 to 10 digits; leading zeros are significant."
)

ALL_HEADER_FIELDS = {
    **HEADER_FIELDS,
    "Feed-State": HeaderField("The state of the live feed.", State),
}
"""The header fields of all responses: the server's and the live feed's."""

_PAGE = Template(html("docs.html"))


class Documentation:
    """The operations of all modules. modules: returns them. limits: those of one client."""

    def __init__(
        self, modules: Callable[[], Iterable[object]], version: str, limits: AccessSettings = UNLIMITED
    ) -> None:
        self._modules = modules
        self._limits = limits
        self.version = version

    @cached_property
    def operations(self) -> list[Operation]:
        """The operations by section and path."""
        operations: list[Operation] = []
        for module in self._modules():
            if IDocumented.providedBy(module):
                operations.extend(IDocumented(module).describe())
        return sorted(operations, key=lambda operation: (SECTIONS.index(operation.section), operation.template))

    @cached_property
    def _json(self) -> bytes:
        info = Info(TITLE, self.version, DESCRIPTION)
        return msgspec.json.encode(document(self.operations, info, ALL_HEADER_FIELDS))

    def json(self) -> bytes:
        """Return the OpenAPI document, made at the first request."""
        return self._json

    def page(self) -> bytes:
        """Return the page."""
        sections: dict[str, list[Operation]] = {}
        for path in self.operations:
            sections.setdefault(path.section, []).append(path)
        contents = "\n".join(
            f'<li><a href="#{_anchor(path)}"><code>{escape(path.template)}</code></a></li>'
            for path in self.operations
        )
        return _PAGE.substitute(
            description=escape(DESCRIPTION),
            rate=self._limits.rate,
            burst=self._limits.burst,
            connections=self._limits.per_client,
            kept=MAX_AGE,
            contents=contents,
            sections="\n".join(_section(*one) for one in sections.items()),
            common=_answers(COMMON_RESPONSES),
            fields=_fields(),
            version=escape(f"{TITLE} {self.version}"),
        ).encode()


def _anchor(path: Operation) -> str:
    return escape(path.template.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "front")


def _section(name: str, paths: Iterable[Operation]) -> str:
    return f"<section><h2>{escape(name)}</h2>{''.join(map(_path, paths))}</section>"


def _path(path: Operation) -> str:
    link = path.template
    for one in path.parameters:
        if one.place == "path" and one.example is not None:
            link = link.replace(f"{{{one.name}}}", str(one.example))
    asked = "&".join(f"{one.name}={quote(str(one.example))}" for one in path.query if one.required)
    link = escape(f"{link}?{asked}" if asked else link)
    return f"""<article class="path" id="{_anchor(path)}">
<h3><code>GET {escape(path.template)}</code></h3>
<p>{escape(path.summary)}.{f" {escape(path.description)}" if path.description else ""}
Try <a href="{link}"><code>{link}</code></a></p>
{_parameters(path.parameters)}{_answers(path.responses)}{"".join(map(_example, path.examples))}</article>"""


def _example(one: Example) -> str:
    """Write a request as a line for curl, with what was answered, JSON in lines of its own for who reads it."""
    kind, body = EXAMPLE_RESPONSES.get(one.key, ("", ""))
    accept = f" -H 'Accept: {one.accept}'" if one.accept else ""
    endless = " -N" if one.accept == "text/event-stream" else ""
    line = f"curl{endless}{accept} 'http://localhost:8080{one.url}'"
    shown = json.dumps(json.loads(body), indent=2, ensure_ascii=False) if kind == JSON else body.rstrip()
    return (
        f'<details><summary>{escape(one.title)}</summary><pre tabindex="0"><code>{escape(line)}</code></pre>'
        f'<p class="soft">{one.status} {phrase(one.status)}, {escape(kind)}</p>'
        f'<pre tabindex="0"><code>{escape(shown)}</code></pre></details>'
    )


def _parameters(parameters: Iterable[Parameter]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(one.name)}</code></th><td>{escape(one.description)} '
        f'<span class="soft">It is {escape(str(one.type))}.</span>'
        f"{' <span class=required>required</span>' if one.required else ''}</td></tr>"
        for one in parameters
    )
    head = '<thead><tr><th scope="col">Parameter</th><th scope="col">What it is</th></tr></thead>'
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>' if rows else ""


def _named(one: ResponseSpec) -> str:
    fields = ", ".join((*one.headers, *(f"{name} at times" for name in one.optional_headers)))
    return f"{one.content_type}; with {fields}" if fields else one.content_type


def _answers(answers: Iterable[ResponseSpec]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{one.status} {phrase(one.status)}</th><td>{escape(one.description)} '
        f'<span class="soft">{escape(_named(one))}</span></td></tr>'
        for one in answers
    )
    head = '<thead><tr><th scope="col">Status</th><th scope="col">What is answered</th></tr></thead>'
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'


def _fields() -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(field.description)}</td></tr>'
        for name, field in ALL_HEADER_FIELDS.items()
    )
    head = '<thead><tr><th scope="col">Field</th><th scope="col">What it tells</th></tr></thead>'
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'


@implementer(IWebModule, IDocumented)
class DocsModule(Service):
    """Responds under its name with a form of the documentation. write: returns its body."""

    def __init__(self, name: str, summary: str, content_type: str, write: Callable[[], bytes]) -> None:
        self.name = name
        self.content_type = content_type
        self.write = write
        self._summary = summary

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "DocsHandler":
        """Return the handler of one request."""
        return DocsHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        content_type = self.content_type.partition(";")[0]
        body = OpenApi if content_type == JSON else str
        responses = (ResponseSpec(200, "The document.", content_type, body, ("Cache-Control", "ETag")),)
        return [Operation(f"/{self.name}", self._summary, responses, section="Pages")]


class DocsHandler(WebHandler):
    """Handles one request for the documentation."""

    def __init__(self, module: DocsModule, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the document."""
        if self.env["path_info"] != f"/{self._module.name}":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        self.mark("lookup")
        made = make_representation(self._module.write(), self._module.content_type, prefers_gzip(self.env))
        self.mark("render")
        self.send_representation(
            CachedResponse(made, (*PAGE_HEADERS, ("Cache-Control", f"public, max-age={DOCS_MAX_AGE}")), "none")
        )


def openapi_modules(documentation: Documentation) -> list[DocsModule]:
    """Return the modules of /openapi.json and /docs."""
    return [
        DocsModule("openapi.json", "This documentation for programs", "application/json", documentation.json),
        DocsModule("docs", "This documentation for people", "text/html; charset=utf-8", documentation.page),
    ]
