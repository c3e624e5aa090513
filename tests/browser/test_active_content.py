"""Whatever a gateway sends, a browser runs none of it; and no page violates its own policy."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import program
from tests.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_RUN = "document.title = 'ran'; fetch('/ran')"
_XHTML = "xmlns:h='http://www.w3.org/1999/xhtml'"
_SVG = "xmlns:s='http://www.w3.org/2000/svg' xmlns:x='http://www.w3.org/1999/xlink'"
CODE = "57330430"
ACTIVE = {
    "script": f"<h:script {_XHTML}>{_RUN}</h:script>",
    "script, default namespace": f"<script xmlns='http://www.w3.org/1999/xhtml'>{_RUN}</script>",
    "external script": f"<h:script {_XHTML} src='/ran'/>",
    "event handler": f'<h:img {_XHTML} src="/ran" onerror="{_RUN}"/>',
    "body handler": f'<h:body {_XHTML} onload="{_RUN}"/>',
    "frame": f'<h:iframe {_XHTML} src="javascript:{_RUN}"/>',
    "document of a frame": f'<h:iframe {_XHTML} srcdoc="&lt;script&gt;parent.{_RUN}&lt;/script&gt;"/>',
    "refresh": f"<h:meta {_XHTML} http-equiv='refresh' content='0;url=/ran'/>",
    "object": f"<h:object {_XHTML} data='/ran'/><h:embed {_XHTML} src='/ran'/>",
    "style": f"<h:style {_XHTML}>@import '/ran'; * {{ background: url(/ran) }}</h:style>",
    "stylesheet": f"<h:link {_XHTML} rel='stylesheet' href='/ran'/>",
    "form": f"<h:form {_XHTML} action='/ran' id='f'/><h:script {_XHTML}>document.forms[0].submit()</h:script>",
    "svg handler": f'<s:svg {_SVG} onload="{_RUN}"><s:script>{_RUN}</s:script></s:svg>',
    "svg link": f"<s:svg {_SVG}><s:use x:href='/ran#a'/><s:image x:href='/ran'/></s:svg>",
    "stylesheet instruction": "<?xml-stylesheet type='text/xsl' href='/ran'?><a/>",
    "nested": f"<Platform><a><h:script {_XHTML}>{_RUN}</h:script></a></Platform>",
}
"""Elements that a browser would run or load, by what they are."""


class ActiveGateway:
    """A gateway whose boards have an element of ACTIVE for each code."""

    def __init__(self, callback_port: int) -> None:
        self.elements: dict[str, str] = {}
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(200)
                self.end_headers()
                match = re.search("<TimingPointCode>([0-9]+)<", body)
                assert match is not None
                threading.Thread(target=gateway._call_back, args=(match[1], callback_port)).start()

            def log_message(self, *arguments: Any) -> None:
                """Do not log requests."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _call_back(self, code: str, port: int) -> None:
        trip = f"<Trip><JourneyNumber>1</JourneyNumber>{self.elements[code]}</Trip>"
        point = f"<TimingPoint><TimingPointCode>{code}</TimingPointCode>{trip}</TimingPoint>"
        connection = http.client.HTTPConnection("127.0.0.1", port)
        head = "<?xml version='1.0'?><?xml-stylesheet type='text/xsl' href='/ran'?>"
        connection.request("POST", "/", f"{head}<DRIS_55><Request>{point}</Request></DRIS_55>")
        connection.getresponse().read()
        connection.close()


@contextmanager
def active_server(folder: Path) -> Iterator[tuple[str, ActiveGateway]]:
    """Run a server of such a gateway; yield its URL and the gateway."""
    port = free_port()
    gateway = ActiveGateway(port)
    options = ["--gateway-url", f"http://127.0.0.1:{gateway.server.server_port}/", "--admin", ""]
    options += ["--callback", f"tcp:{port}:interface=127.0.0.1", "--listen", "tcp:0:interface=127.0.0.1"]
    with program.twistd(folder, "govi-cache", *options) as address:
        yield f"http://{address}", gateway
    gateway.server.shutdown()
    gateway.server.server_close()


@pytest.fixture(scope="module")
def active(folder: Path) -> Iterator[tuple[str, ActiveGateway]]:
    """Return such a server and its gateway."""
    with active_server(folder) as server:
        yield server


def test_nothing_of_a_gateway_runs(active: tuple[str, ActiveGateway], browser: Browser) -> None:
    """No element of a board runs, loads or navigates, though it is in the document."""
    url, gateway = active
    pages, loaded = {}, []
    context = browser.new_context()
    for code, (kind, element) in enumerate(ACTIVE.items(), 1000):
        gateway.elements[str(code)] = element
        page = pages[f"{url}/kv55/{code}"] = context.new_page()
        # Requests are also reported if they are blocked.
        page.on("response", lambda response: loaded.append(response.url))
        response = page.goto(f"{url}/kv55/{code}")
        assert response is not None
        assert response.status == 200
        assert re.findall("<(?:[a-z]+:)?[a-z]+", element.replace("<?", ""))[-1].encode() in response.body(), kind
    page.wait_for_timeout(300)  # in which scripts, handlers and loads would have run
    assert not [url for url in loaded if "/ran" in url]
    for address, page in pages.items():
        assert (page.url, page.title() == "ran") == (address, False)
    context.close()


def test_documents_can_be_fetched_by_other_sites(active: tuple[str, ActiveGateway], browser: Browser) -> None:
    """The policy of documents does not keep pages of other sites from reading them."""
    url, gateway = active
    gateway.elements["1"] = "<a/>"
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{gateway.server.server_port}/")
    assert "DRIS_55" in page.evaluate("url => fetch(url).then(response => response.text())", f"{url}/kv55/1")
    page.close()


def test_documents_are_shown(town: str, browser: Browser) -> None:
    """Documents can be opened in a browser: JSON, text and XML."""
    page = browser.new_page()
    for path, text in (("/openapi.json", "openapi"), (f"/kv55/{CODE}", "DRIS_55"), ("/nothing", "No such path")):
        page.goto(town + path)
        assert text in page.content()
    page.close()


def test_status_page_reloads(town: str, page: Page) -> None:
    """The status page is shown with its styles, and reloads itself."""
    page.goto(program.status_url(town))
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--verdict')")
    session = page.context.new_cdp_session(page)
    with page.expect_request(program.status_url(town)):
        session.send("Emulation.setVirtualTimePolicy", {"policy": "advance", "budget": 11_000})
