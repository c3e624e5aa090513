"""Tests that modules send what they document, with every source of departures, and of /openapi.json and /docs."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any
from unittest import mock
from urllib.parse import quote

from jsonschema_rs import Draft202012Validator
from lxml import html
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.cache import BoardCache
from govi_server.departures.source import Busy, SourceBroken, SourceSilent
from govi_server.http.client_limits import UNLIMITED
from govi_server.modules.display_source import CacheDisplays, FeedDisplays, IDisplaySource
from govi_server.modules.docs import Documentation
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.openapi.description import IDocumented, Operation
from govi_server.web_handler import ICacheableModule, IWebModule
from tests import examples
from tests.client import Response
from tests.event_stream import parse_event_stream
from tests.examples import SOURCES, Program

# Header fields of HTTP and for browsers; operations do not document them.
HTTP_FIELDS = {
    "date", "server", "data-source", "content-type", "content-length",
    "content-encoding", "connection", "vary", "x-accel-buffering",
    "access-control-allow-origin", "access-control-expose-headers", "access-control-allow-headers",
    "content-security-policy", "referrer-policy", "x-content-type-options",
}  # fmt: skip


class Document:
    """An OpenAPI document. content: its JSON, with schemas that reject undeclared members."""

    def __init__(self, text: bytes) -> None:
        self.content = strict(json.loads(text))
        self._validators: dict[str, Draft202012Validator] = {}

    def validate(self, value: Any, schema: Any) -> None:
        """Validate a value, and the formats of its texts, by a schema of the document. Raises ValidationError."""
        key = json.dumps(schema)
        if key not in self._validators:
            full_schema = {**schema, "components": self.content["components"]}  # to which its references point
            self._validators[key] = Draft202012Validator(full_schema, validate_formats=True)
        self._validators[key].validate(value)

    def validate_body(self, schema: Any, content_type: str, text: str) -> Any:
        """Validate a body; of a stream, its first event and the JSON in it. Return the parsed body."""
        if content_type == "application/json" or content_type.endswith("+json"):
            value = json.loads(text)
        elif content_type == "text/event-stream":
            value = event_of(text)
            if value["data"].startswith("{"):
                reference = schema["discriminator"]["mapping"][value["event"]].rpartition("/")[2]
                data = self.content["components"]["schemas"][reference]["properties"]["data"]
                self.validate(json.loads(value["data"]), data["anyOf"][0]["contentSchema"])
        else:
            value = text
        self.validate(value, schema)
        return value


parse_document = lru_cache(maxsize=8)(Document)
"""Parses each document once: making its validators costs more than validating a response."""


@lru_cache
def document_of(source: str) -> bytes:
    """Return the document of a program."""
    return Program(source).request("/openapi.json").body


@lru_cache
def operations_of(source: str) -> list[Operation]:
    """Return the operations of a program."""
    return list(Program(source).operations)


def programs(source: str) -> Iterator[Program]:
    """Yield the program in its normal state, and in states of failure."""
    program = Program(source)
    yield program
    if source == "feed":
        program.clock.advance(400)  # the data is too old
        yield program
        empty = Program(source, has_data=False)
        yield empty
        empty.set_feed_state("DOWN")
        yield empty
    if source == "gateway":
        for error in (SourceSilent(), SourceBroken(), Busy()):
            with mock.patch.object(BoardCache, "board", side_effect=lambda code, error=error: ("miss", fail(error))):
                yield Program(source, has_data=False)


def strict(schema: Any) -> Any:
    """Return a schema that rejects undeclared members."""
    if isinstance(schema, dict):
        closed = {name: strict(value) for name, value in schema.items()}
        if "properties" in schema:
            closed.setdefault("additionalProperties", False)
        return closed
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def event_of(text: str) -> dict[str, Any]:
    """Parse the first event of a stream."""
    first = parse_event_stream(text.encode())[0]
    values = {"event": first.type, "data": first.data, "id": first.last_event_id, "retry": 4000}
    return {name: values[name] for name in first.fields}


def requests(operation: Operation, content_types: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield URLs and Accept fields for a path: valid ones, unknown codes and invalid parameters."""
    good, bad = operation.template, operation.template
    for parameter in operation.parameters:
        if parameter.place == "path":
            good = good.replace(f"{{{parameter.name}}}", str(parameter.example))
            bad = bad.replace(f"{{{parameter.name}}}", "nothing")
    required = [parameter for parameter in operation.query if parameter.required]
    query = "&".join(f"{parameter.name}={quote(str(parameter.example))}" for parameter in required)
    for accept in content_types:
        yield f"{good}?{query}", accept
        yield f"{bad}?{query}", accept
    for parameter in operation.parameters:
        for value in parameter.type.schema.get("enum", ()) if parameter.place == "path" else ():
            yield operation.template.replace(f"{{{parameter.name}}}", value), ""
    for parameter in operation.query:
        if parameter.example is not None:
            yield f"{good}?{query}&{parameter.name}={quote(str(parameter.example))}", ""
        yield f"{good}?{query}&{parameter.name}={'x' * 200}", ""
    yield good, ""
    for example in operation.examples:
        yield example.url, example.accept


class DocumentationTests(SynchronousTestCase):
    """All modules of the program, over the demo's town."""

    def check(self, document: Document, path: str, response: Response, method: str = "get") -> tuple[int, str]:
        """Compare a response with the document: status, header fields, content type and body.

        Return its status and content type.
        """
        described = document.content["paths"][path][method]["responses"][str(response.status)]
        documented = {name.lower(): header for name, header in described.get("headers", {}).items()}
        sent = {name.lower(): value for name, value in response.headers.items()}
        self.assertLessEqual(set(sent) - HTTP_FIELDS, set(documented), response)
        for name, header in documented.items():
            if name in sent:
                is_number = header["schema"].get("type") == "integer"
                document.validate(int(sent[name]) if is_number else sent[name], header["schema"])
            else:
                self.assertFalse(header["required"], (name, response))
        content_type = response.headers.get_content_type()
        if method == "head" or response.status == 304:
            self.assertEqual((response.body, "content" in described), (b"", False))
        else:
            schema = described["content"][content_type]["schema"]
            coding = "latin-1" if content_type.startswith("image/") else "utf-8"
            document.validate_body(schema, content_type, response.body.decode(coding))
        return response.status, content_type

    def test_every_path_sends_what_it_documents(self) -> None:
        """Every path sends the responses that it documents and no others, in every state of feed and gateway."""
        seen: set[tuple[str, int, str]] = set()
        documented = set()
        for source in SOURCES:
            for program in programs(source):
                document = parse_document(program.request("/openapi.json").body)
                paths = document.content["paths"]
                self.assertEqual({operation.template for operation in program.operations}, set(paths))
                for operation in program.operations:
                    path = operation.template
                    documented |= {(path, spec.status, spec.content_type) for spec in operation.responses}
                    content_types = paths[path]["get"]["responses"]["200"]["content"]
                    for url, accept in requests(operation, content_types):
                        response = (path, *self.check(document, path, program.request(url, accept)))
                        if response not in seen:
                            self.check(document, path, program.request(url, accept, "HEAD"), "head")
                        seen.add(response)
        self.assertEqual(documented - seen, set())

    def test_common_responses_are_documented(self) -> None:
        """The responses that any path may send are documented: unchanged, and method not allowed."""
        program = Program("demo")
        document = parse_document(program.request("/openapi.json").body)
        for operation in program.operations:
            path = operation.template
            described = document.content["paths"][path]["get"]["responses"]
            for example in (example for example in operation.examples if example.status == 200):
                tag = program.request(example.url, example.accept).headers["ETag"]
                requests = [("DELETE", "", 405), ("QUERY", "", 405), ("BREW", "", 501)]
                if tag is not None:
                    requests += [("GET", f"If-None-Match: {tag}\r\n", 304), ("GET", 'If-Match: "x"\r\n', 412)]
                self.assertEqual(tag is not None, "304" in described, path)
                for method, more, status in requests:
                    response = program.request(example.url, example.accept, method, more)
                    self.assertEqual(response.status, status, (method, example.url))
                    self.check(document, path, response)

    def test_references_are_resolved(self) -> None:
        """Each reference of the document points to one of its schemas, and each schema is referenced."""
        for source in SOURCES:
            text = document_of(source).decode()
            references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
            self.assertEqual(references, set(json.loads(text)["components"]["schemas"]))

    def test_every_path_is_documented(self) -> None:
        """Every module describes itself, and undocumented paths are a 404."""
        for source in SOURCES:
            program = Program(source)
            for module in program.modules:
                is_cacheable = ICacheableModule.providedBy(module)
                verifyObject(ICacheableModule if is_cacheable else IWebModule, module)
                verifyObject(IDocumented, module)
                operations = IDocumented(module).describe()
                self.assertEqual({operation.template.split("/")[1] for operation in operations}, {module.name})
            # All combinations of the templates' segments and the parameters' examples.
            operations = program.operations
            templates = [operation.template for operation in operations]
            words = {part for template in templates for part in template.split("/")[2:] if "{" not in part}
            parameters = [parameter for operation in operations for parameter in operation.parameters]
            values = {str(parameter.example): "{}" for parameter in parameters if parameter.place == "path"}
            documented = {re.sub(r"\{\w+\}", "{}", template).rstrip("/") for template in templates}
            modules = [str(module.name) for module in program.modules]
            for module, *rest in product(modules, *[["", *words, *values]] * 2):
                parts = ["", module, *filter(None, rest)]
                query = "?MonitoringRef=57330430&q=markt&lat=52&lon=5"
                if program.request("/".join(parts) + query, method="HEAD").status not in (400, 404):
                    self.assertIn("/".join(values.get(part, part) for part in parts).rstrip("/"), documented)

    def test_display_sources(self) -> None:
        """Both display sources implement the interface."""
        verifyObject(IDisplaySource, FeedDisplays(mock.Mock()))
        verifyObject(IDisplaySource, CacheDisplays(mock.Mock(), mock.Mock()))

    def test_examples_of_parameters_are_valid(self) -> None:
        """A parameter's example is valid for its schema and its parser."""
        for operation in (operation for source in SOURCES for operation in operations_of(source)):
            names = [parameter.name for parameter in operation.parameters if parameter.place == "path"]
            segments = operation.template.split("{")[1:]
            self.assertEqual(sorted(names), sorted(segment.split("}")[0] for segment in segments))
            for parameter in operation.parameters:
                if parameter.example is not None:
                    Draft202012Validator(dict(parameter.type.schema)).validate(parameter.example)
                    self.assertIsNotNone(parameter.type.parse(str(parameter.example)), parameter.name)

    def test_operation_ids_are_names_of_functions(self) -> None:
        """Each operationId is unique and a verb with a noun in camel case, also for modules with similar names."""
        names = ("kv55", "Kv55", "kv-55", "a-b", "aB", "stop")
        modules = [Kv55Gateway(name, mock.Mock()) for name in names]
        description = Documentation(lambda: modules, "1", UNLIMITED)
        texts = [document_of(source) for source in SOURCES]
        for text in (*texts, description.json):
            paths = json.loads(text)["paths"]
            ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
            self.assertEqual(len({name.lower() for name in ids}), len(ids))
            for name in ids:
                self.assertRegex(name, "^(get|head)[A-Z][A-Za-z0-9]+$")
        documented = {
            operation["operationId"] for path in json.loads(texts[0])["paths"].values() for operation in path.values()
        }
        self.assertLessEqual({"getBoard", "headBoard", "getEvents", "getPlaces", "getKv55Document"}, documented)

    def test_every_array_has_items(self) -> None:
        """Each array of each schema describes its items: generators leave out responses whose arrays do not."""

        def arrays(value: Any) -> Iterator[Any]:
            members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            for member in members:
                yield from arrays(member)
            if isinstance(value, dict) and value.get("type") == "array":
                yield value

        for source in SOURCES:
            found = list(arrays(json.loads(document_of(source))))
            self.assertGreater(len(found), 1)
            self.assertEqual([array for array in found if not array.get("items")], [])

    def test_examples_fit_their_schemas(self) -> None:
        """Each example of a parameter and of a response is valid for the schema beside it."""
        checked = set()
        for source in SOURCES:
            document = parse_document(document_of(source))
            for path, operations in document.content["paths"].items():
                for operation in operations.values():
                    for parameter in operation["parameters"]:
                        if "example" in parameter:
                            document.validate(parameter["example"], parameter["schema"])
                    for response in operation["responses"].values():
                        for content_type, media in response.get("content", {}).items():
                            for example in media.get("examples", {}).values():
                                document.validate(example["value"], media["schema"])
                                checked.add((path, content_type))
        self.assertIn(("/events/{TimingPointCodes}", "text/event-stream"), checked)
        self.assertIn(("/board/{TimingPointCodes}", "application/json"), checked)

    def test_examples_are_current(self) -> None:
        """The responses in examples.json equal those of the modules; `make examples` updates them."""
        self.assertEqual(examples.FILE.read_text(), examples.as_json())
        for example, response in examples.examples():
            self.assertEqual(response.status, example.status, example.url)

    def test_docs(self) -> None:
        """The page has every path, with its examples and their responses."""
        program = Program("feed")
        page = html.document_fromstring(program.request("/docs").body.decode())
        headings = [heading.text_content().removeprefix("GET ") for heading in page.xpath("//article/h3")]
        self.assertEqual(sorted(headings), sorted(operation.template for operation in program.operations))
        for anchor in page.xpath("//nav//a/@href"):
            self.assertEqual(len(page.xpath(f"//*[@id='{anchor[1:]}']")), 1, anchor)
        lines = [line.text_content() for line in page.xpath("//details/pre[1]")]
        documented = [example for operation in program.operations for example in operation.examples]
        self.assertEqual(len(lines), len(documented))
        for example in documented:
            self.assertTrue(any(example.url in line and example.accept in line for line in lines), example.url)
        self.assertNotIn("", [body.text_content() for body in page.xpath("//details/pre[2]")])
        self.assertIn("50 requests per second", " ".join(page.text_content().split()))

    def test_address_in_examples(self) -> None:
        """Examples request localhost, which the page says, or the server by the address that its clients use."""
        for address, is_local in (("http://localhost:8080", True), ("https://bus.example/", False)):
            page = Documentation(lambda: [Kv55Gateway("kv55", mock.Mock())], "1", address=address).page.decode()
            commands = html.document_fromstring(page).xpath("//pre/code[starts-with(text(), 'curl')]/text()")
            self.assertGreater(len(commands), 3)
            for command in commands:
                self.assertIn(f"'{address.rstrip('/')}/", command)
            self.assertEqual("localhost" in page, is_local)
