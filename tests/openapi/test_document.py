"""What the modules declare is what they do, whatever the departures are from; /openapi.json and /docs tell it."""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest import mock
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from lxml import html
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.cache import BoardCache
from govi_server.departures.source import Busy, SourceBroken, SourceSilent
from govi_server.http.parameters import Enum, Integer, InvalidParameter, Number, Parameter, String, parse_query
from govi_server.modules.display_source import CacheDisplays, FeedDisplays, IDisplaySource
from govi_server.openapi.description import IDocumented, Operation
from govi_server.web_handler import ICacheableModule, IWebModule
from tests import examples
from tests.client import Answer
from tests.examples import SOURCES, Program

# What HTTP and browsers are told with any answer; it needs no telling in a contract.
OF_HTTP = {
    "date", "content-type", "content-length", "content-encoding", "connection", "vary", "x-accel-buffering",
    "access-control-allow-origin", "access-control-expose-headers", "access-control-allow-headers",
    "content-security-policy", "referrer-policy", "x-content-type-options",
}  # fmt: skip


def programs(source: str) -> Iterator[Program]:
    """Give the program as it is when all is well, and when it is not."""
    program = Program(source)
    yield program
    if source == "feed":
        program.clock.advance(400)  # what is known is too old
        yield program
        empty = Program(source, told=False)
        yield empty
        empty.turn("DOWN")
        yield empty
    if source == "gateway":
        for error in (SourceSilent(), SourceBroken(), Busy()):
            with mock.patch.object(BoardCache, "board", side_effect=lambda code, error=error: ("miss", fail(error))):
                yield Program(source, told=False)


def strict(schema: Any) -> Any:
    """Give a schema that takes no names but those that it tells of."""
    if isinstance(schema, dict):
        closed = {name: strict(value) for name, value in schema.items()}
        if "properties" in schema:
            closed.setdefault("additionalProperties", False)
        return closed
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


def validate(value: Any, schema: Any) -> None:
    """Check a value, the forms of its texts among it. Raises ValidationError."""
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)


def event_of(text: str) -> dict[str, str]:
    """Read the first event of a stream."""
    block = next(one for one in text.split("\n\n") if "event: " in one)
    return dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))


class ContractTests(SynchronousTestCase):
    """The modules as the program puts them together, over the made-up town."""

    def check(self, operation: Any, answer: Answer, is_head: bool = False) -> tuple[int, str]:
        """Hold an answer against what is declared of its path: status, header fields, type and body."""
        said = operation["responses"][str(answer.status)]
        fields = {name.lower(): header for name, header in said.get("headers", {}).items()}
        told = {name.lower(): value for name, value in answer.headers.items()}
        self.assertLessEqual(set(told) - OF_HTTP, set(fields), answer)
        for name, header in fields.items():
            if name in told:
                is_number = header["schema"]["type"] == "integer"
                validate(int(told[name]) if is_number else told[name], header["schema"])
            else:
                self.assertFalse(header["required"], (name, answer))
        kind = answer.headers.get_content_type()
        if is_head or answer.status == 304:
            self.assertEqual((answer.body, "content" in said), (b"", False))
            return answer.status, kind
        schema = said["content"][kind]["schema"]
        body: Any = answer.body.decode()
        if kind == "application/json":
            body = json.loads(body)
        elif kind == "text/event-stream":
            body = event_of(body)
            if body["data"].startswith("{"):
                data = schema["anyOf"][0]["properties"]["data"]["anyOf"][0]["contentSchema"]
                validate(json.loads(body["data"]), strict(data))
        validate(body, strict(schema) if kind != "text/html" and "openapi" not in body else schema)
        return answer.status, kind

    def requests(self, path: Operation, operation: Any) -> Iterator[tuple[str, str]]:
        """Give what to ask of a path, and what to accept: what is there, what is not, and what is wrong."""
        good, bad = path.template, path.template
        for one in path.parameters:
            if one.place == "path":
                good = good.replace(f"{{{one.name}}}", str(one.example))
                bad = bad.replace(f"{{{one.name}}}", "nothing")
        required = [one for one in path.query if one.required]
        query = "&".join(f"{one.name}={quote(str(one.example))}" for one in required)
        for accept in operation["responses"]["200"]["content"]:
            yield f"{good}?{query}", accept
            yield f"{bad}?{query}", accept
        for one in path.parameters:
            for word in one.kind.schema.get("enum", ()) if one.place == "path" else ():
                yield path.template.replace(f"{{{one.name}}}", word), ""
        for one in path.query:
            if one.example is not None:
                yield f"{good}?{query}&{one.name}={quote(str(one.example))}", ""
            yield f"{good}?{query}&{one.name}={'x' * 200}", ""
        yield good, ""
        for example in path.examples:
            yield example.ask, example.accept

    def test_every_path(self) -> None:
        """Every path gives every answer that it declares, and no other, in every state of feed and gateway."""
        seen: set[tuple[str, int, str]] = set()
        declared = set()
        for source in SOURCES:
            for program in programs(source):
                document = json.loads(program.ask("/openapi.json").body)
                self.assertEqual({path.template for path in program.paths}, set(document["paths"]))
                for path in program.paths:
                    declared |= {(path.template, answer.status, answer.content_type) for answer in path.answers}
                    methods = document["paths"][path.template]
                    for ask, accept in self.requests(path, methods["get"]):
                        found = (path.template, *self.check(methods["get"], program.ask(ask, accept)))
                        if found not in seen:
                            self.check(methods["head"], program.ask(ask, accept, "HEAD"), is_head=True)
                        seen.add(found)
        self.assertEqual(declared - seen, set())

    def test_common(self) -> None:
        """What any path may answer is declared, too: that it is unchanged, and that a method is not allowed."""
        program = Program("demo")
        document = json.loads(program.ask("/openapi.json").body)
        for path in program.paths:
            operation = document["paths"][path.template]["get"]
            for example in (example for example in path.examples if example.status == 200):
                tag = program.ask(example.ask, example.accept).headers["ETag"]
                requests = [("DELETE", "", 405), ("QUERY", "", 405), ("BREW", "", 501)]
                if tag is not None:
                    requests += [("GET", f"If-None-Match: {tag}\r\n", 304), ("GET", 'If-Match: "x"\r\n', 412)]
                self.assertEqual(tag is not None, "304" in operation["responses"], path.template)
                for method, more, status in requests:
                    answer = program.ask(example.ask, example.accept, method, more)
                    self.assertEqual(answer.status, status, (method, example.ask))
                    self.check(operation, answer)

    def test_nothing_undeclared(self) -> None:
        """Whatever is answered is declared: no module without a contract, no path beside those of the contracts."""
        for source in SOURCES:
            program = Program(source)
            for module in program.modules:
                is_cacheable = ICacheableModule.providedBy(module)
                verifyObject(ICacheableModule if is_cacheable else IWebModule, module)
                verifyObject(IDocumented, module)
                self.assertEqual(
                    {path.template.split("/")[1] for path in IDocumented(module).describe()}, {module.name}
                )
            # Whatever can be put together of the words and examples of the contracts.
            words = {part for path in program.paths for part in path.template.split("/")[2:] if "{" not in part}
            given = [one for path in program.paths for one in path.parameters if one.place == "path"]
            values = {str(one.example): "{}" for one in given}
            declared = {re.sub(r"\{\w+\}", "{}", path.template).rstrip("/") for path in program.paths}
            modules = [str(module.name) for module in program.modules]
            for module, *rest in product(modules, *[["", *words, *values]] * 2):
                parts = ["", module, *filter(None, rest)]
                query = "?MonitoringRef=57330430&q=markt&lat=52&lon=5"
                if program.ask("/".join(parts) + query, method="HEAD").status != 404:
                    self.assertIn("/".join(values.get(part, part) for part in parts).rstrip("/"), declared)

    def test_signs(self) -> None:
        """Both kinds of signs tell what they can be asked."""
        verifyObject(IDisplaySource, FeedDisplays(mock.Mock()))
        verifyObject(IDisplaySource, CacheDisplays(mock.Mock(), mock.Mock()))

    def test_parameters(self) -> None:
        """A parameter's schema takes its example, and so does what reads it."""
        for path in (path for source in SOURCES for path in Program(source).paths):
            names = [one.name for one in path.parameters if one.place == "path"]
            self.assertEqual(sorted(names), sorted(part.split("}")[0] for part in path.template.split("{")[1:]))
            for one in path.parameters:
                if one.example is not None:
                    validate(one.example, one.kind.schema)
                    self.assertIsNotNone(one.kind.read(str(one.example)), one.name)

    def test_examples(self) -> None:
        """What /docs shows as answered is what is answered: make examples writes it anew."""
        self.assertEqual(examples.FILE.read_text(), examples.written())
        for example, answer in examples.examples():
            self.assertEqual(answer.status, example.status, example.ask)

    def test_docs(self) -> None:
        """The page tells of every path, with its examples and what was answered to each."""
        program = Program("feed")
        page = html.document_fromstring(program.ask("/docs").body.decode())
        told = [heading.text_content().removeprefix("GET ") for heading in page.xpath("//article/h3")]
        self.assertEqual(sorted(told), sorted(path.template for path in program.paths))
        for anchor in page.xpath("//nav//a/@href"):
            self.assertEqual(len(page.xpath(f"//*[@id='{anchor[1:]}']")), 1, anchor)
        lines = [line.text_content() for line in page.xpath("//details/pre[1]")]
        asked = [example for path in program.paths for example in path.examples]
        self.assertEqual(len(lines), len(asked))
        for example in asked:
            self.assertTrue(any(example.ask in line and example.accept in line for line in lines), example.ask)
        self.assertNotIn("", [body.text_content() for body in page.xpath("//details/pre[2]")])
        self.assertIn("50 requests a second", " ".join(page.text_content().split()))

    @given(
        st.text(), st.sampled_from([Integer("x", 1, 50), Number(-90, 90), Enum(("1", "2")), String(5, "[0-9]+", 1)])
    )
    def test_reads_what_it_promises(self, text: str, kind: Any) -> None:
        """What a parameter reads is what its schema promises; anything else is a BadQuery that names it."""
        parameter = Parameter("x", kind, "")
        try:
            value = parameter.parse({"x": text})
        except InvalidParameter as error:
            self.assertIn("x is ", str(error))
        else:
            Draft202012Validator(kind.schema).validate(value)

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
    def test_hostile_queries(self, query: str) -> None:
        """Any query string is read or refused."""
        try:
            self.assertIsInstance(parse_query(query), dict)
        except InvalidParameter as error:
            self.assertTrue(str(error))
