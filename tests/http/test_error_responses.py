"""Tests of govi_server.http.error_responses: the body of an error, as Accept selects."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.error_responses import DETAIL, QUERY, ErrorFormats
from govi_server.http.request import parse

FORMATS = ErrorFormats(
    {lang: {kind: f"{lang} {kind} <{DETAIL}|{QUERY}>" for kind in ("not_found", "invalid")} for lang in ("nl", "en")},
    [("Referrer-Policy", "no-referrer")],
    texts=["kv55"],
    problems=["places"],
)
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def error(
    path: str, accept: str = "", status: str = "404 Not Found", text: str = "No such path\n"
) -> tuple[str, str]:
    """Return content type and body of an error for a request."""
    field = f"Accept: {accept}\r\n" if accept else ""
    env = parse(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Language: en\r\n{field}\r\n")
    body, fields = FORMATS.format(env, status, text)
    return dict(fields)["Content-Type"].partition(";")[0], body


class ErrorFormatsTests(SynchronousTestCase):
    """ErrorFormats.format()."""

    def test_form_follows_accept(self) -> None:
        """Browsers get a page, clients of JSON problem details, and others text, as before."""
        for path, accept, expected in [
            ("/nothing", "", "text/plain"),
            ("/nothing", "*/*", "text/plain"),
            ("/nothing", BROWSER, "text/html"),
            ("/board/1", "application/json", "application/problem+json"),
            ("/board/1", "application/problem+json", "application/problem+json"),
            ("/places", "*/*", "application/problem+json"),
            ("/places", BROWSER, "text/html"),
            ("/kv55/1", "application/json", "text/plain"),
            ("/kv55/1", BROWSER, "text/html"),
            ("/events/", "text/event-stream", "text/plain"),
        ]:
            self.assertEqual(error(path, accept)[0], expected, (path, accept))

    def test_problem_details(self) -> None:
        """Problem details have the members of RFC 9457, and the text of the error."""
        problem = json.loads(error("/places", text="q is missing\n", status="400 Bad Request")[1])
        expected = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "q is missing"}
        self.assertEqual(problem, expected)

    def test_page_has_the_text_and_the_words_of_the_path(self) -> None:
        """The page is in the language of the request, with escaped texts; the search has the path's words."""
        body = error("/board/caf%C3%A9%20%3Cb%3E", BROWSER, text="No <stop>\n")[1]
        self.assertEqual(body, "en not_found <No &lt;stop&gt;|café &lt;b&gt;>")
        self.assertEqual(error("/x?lang=nl", BROWSER)[1], "nl not_found <No such path|>")
        self.assertEqual(error("/x?lang=xx", BROWSER, "418 Teapot")[1], "en invalid <No such path|>")
        self.assertEqual(error(f"/x?{'a=1&' * 200}lang=nl", BROWSER)[1][:2], "en")  # too many parameters

    @given(st.text(st.characters(max_codepoint=255)), st.text())
    def test_any_texts(self, path: str, text: str) -> None:
        """No path or text adds markup, replaces a placeholder, or is invalid UTF-8."""
        env = parse("GET /board/x HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n")
        del env["path_info"]
        env["path_info"] = f"/board/{path}"
        body, _ = FORMATS.format(env, "404 Not Found", text)
        body.encode()
        self.assertEqual((body.count("<"), body.count(">")), (1, 1))
