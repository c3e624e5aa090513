"""Measures the longest turn of the reactor, and the longest wait of another client, for the requests that cost most.

    python bench/turns.py [--stops 5000] [--planned 4] [--only NAME] [--at-once 30]

Starts `twistd govi-cache` with a feed of fictitious stops (20 live passtimes each, and a timetable with so many times
as many planned ones), and sends each request once, and the most expensive ones at once, while another client requests
a board every 10 ms. Loopback only; the server is stopped at the end.
"""

import argparse
import http.client
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import zmq
from peers import FIRST_PORT, Running, govi_cache
from rows import (
    calendar_tables,
    journey_stop_type,
    kv7_message,
    kv8_message,
    line_tables,
    passtime_row,
    planned_row,
    planned_table,
    stop_tables,
)

from govi_server.departures.times import local_timestamp, write_time
from govi_server.runtime.clock import LOCAL_ZONE

STOPS_PER_JOURNEY = 20
JOURNEYS_PER_LINE = 10
LIST = 1000


class Town:
    """Lines of 20 stops, each with 10 live journeys, and with planned times as many planned ones."""

    def __init__(self, stops: int, planned: int, folder: Path) -> None:
        self.stops, self.planned, self.folder = stops, planned, folder
        self.n_lines = stops * 20 // (STOPS_PER_JOURNEY * JOURNEYS_PER_LINE)
        self.now = time.time()
        self.today = datetime.fromtimestamp(self.now, LOCAL_ZONE).date()
        local = datetime.fromtimestamp(self.now, LOCAL_ZONE)
        self.seconds = local.hour * 3600 + local.minute * 60

    def code(self, line: int, order: int) -> str:
        """Return the TimingPointCode of a stop of a line."""
        return f"{40000000 + (line * 37 + order * 11) % self.stops}"

    @property
    def codes(self) -> list[str]:
        """The TimingPointCodes of all stops."""
        return [f"{40000000 + n}" for n in range(self.stops)]

    def line(self, n: int) -> str:
        """Return the key of a line."""
        return f"OWN_L{n}_1"

    def journey(self, n: int) -> str:
        """Return the key of a journey."""
        line, nth = divmod(n, JOURNEYS_PER_LINE)
        return f"OWN_77_L{line}_{1000 + nth}_0"

    def write_timetable(self) -> None:
        """Write KV7: names, a calendar, and planned passtimes."""
        lines = [f"L{n}" for n in range(self.n_lines)]
        planned = []
        for line in range(self.n_lines):
            for nth in range(JOURNEYS_PER_LINE * self.planned):
                for order in range(STOPS_PER_JOURNEY):
                    when = write_time(self.seconds + 300 + nth * 360 + order * 120)
                    stop_type = journey_stop_type(order + 1, STOPS_PER_JOURNEY)
                    code = self.code(line, order)
                    planned.append(planned_row("OWN", "77", f"L{line}", 1000 + nth, order + 1, code, when, stop_type))
        messages = {
            "0-points": [*stop_tables("OWN", self.codes), *line_tables("OWN", lines)],
            "1-calendar": calendar_tables("OWN", "77", self.today - timedelta(1), 4),
            "2-planned": [planned_table(planned)],
        }
        for name, tables in messages.items():
            (self.folder / f"{name}.ctx").write_bytes(kv7_message("OWN", self.now, tables))

    def messages(self) -> list[bytes]:
        """Return KV8, a message for each line."""
        stamp = local_timestamp(self.now)
        messages = []
        for line in range(self.n_lines):
            rows = []
            for nth in range(JOURNEYS_PER_LINE):
                for order in range(STOPS_PER_JOURNEY):
                    planned = self.seconds + 300 + nth * 360 + order * 120
                    values = {
                        "OperationDate": self.today.isoformat(),
                        "JourneyNumber": str(1000 + nth),
                        "LocalServiceLevelCode": "77",
                        "LinePlanningNumber": f"L{line}",
                        "LineDirection": "1",
                        "UserStopOrderNumber": str(order + 1),
                        "UserStopCode": self.code(line, order),
                        "TimingPointCode": self.code(line, order),
                        "LastUpdateTimeStamp": stamp,
                        "JourneyStopType": journey_stop_type(order + 1, STOPS_PER_JOURNEY),
                        "TargetArrivalTime": write_time(planned),
                        "TargetDepartureTime": write_time(planned),
                        "ExpectedArrivalTime": write_time(planned + 60),
                        "ExpectedDepartureTime": write_time(planned + 60),
                    }
                    rows.append(passtime_row(values))
            messages.append(kv8_message(rows, self.now))
        return messages

    def requests(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Return the requests to measure by name: path and header fields."""
        codes, n = self.codes, LIST
        stops = ",".join(codes[:n])
        lines = ",".join(self.line(i) for i in range(min(n, self.n_lines)))
        journeys = ",".join(self.journey(i) for i in range(n * 5 // 10))
        areas = ",".join(f"Area{i}" for i in range(min(n, self.stops // 10)))
        gz = {"Accept-Encoding": "gzip"}
        json, text, html = ({"Accept": kind} for kind in ("application/json", "text/plain", "text/html"))
        hundred = ",".join(codes[:100])
        return {
            "line": (f"/line/{lines}", gz),
            "line x100": ("/line/" + ",".join(self.line(i) for i in range(100)), gz),
            "line actuals": (f"/line/{lines}/actuals", gz),
            "line x1": (f"/line/{self.line(1)}", {}),
            "line all": ("/line/", gz),
            "journey": (f"/journey/{journeys}", gz),
            "journey x1": (f"/journey/{self.journey(1)}", {}),
            "journey all": ("/journey/", gz),
            "tpc": (f"/tpc/{stops}", gz),
            "tpc x100": (f"/tpc/{hundred}", gz),
            "tpc day": (f"/tpc/{stops}?horizon=1440", {}),
            "tpc all": ("/tpc/", gz),
            "stopareacode": (f"/stopareacode/{areas}?horizon=1440", gz),
            "stopareacode x100": ("/stopareacode/" + ",".join(f"Area{i}" for i in range(100)) + "?horizon=1440", gz),
            "stopareacode all": ("/stopareacode/", gz),
            "kv55": (f"/kv55/{stops}", gz),
            "board html": (f"/board/{stops}", {**html, **gz}),
            "board text": (f"/board/{stops}?horizon=1440", {**text, **gz}),
            "board json": (f"/board/{stops}?horizon=1440", {**json, **gz}),
            "board x100": (f"/board/{hundred}", {**html, **gz}),
            "siri": (f"/siri/stop-monitoring.json?MonitoringRef={codes[5]}&PreviewInterval=P1D", gz),
            "generalmessage": ("/generalmessage", gz),
            "lastupdate": ("/lastupdate", gz),
            "places": ("/places?q=to%20st", gz),
            "near": ("/near?lat=52.0&lon=5.0", gz),
            "front": ("/?q=s", {}),
            "openapi": ("/openapi.json", gz),
            "docs": ("/docs", gz),
        }


class Watch(threading.Thread):
    """A client that requests a board every 10 ms; worst: its longest wait in seconds."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True)
        self.port, self.path, self.worst, self.running = port, path, 0.0, True

    def run(self) -> None:
        """Request until running is false."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while self.running:
            began = time.perf_counter()
            connection.request("GET", self.path)
            connection.getresponse().read()
            self.worst = max(self.worst, time.perf_counter() - began)
            time.sleep(0.01)


def get(port: int, path: str, headers: dict[str, str]) -> tuple[int, int, float]:
    """Return status, bytes and seconds."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, len(body), time.perf_counter() - began


def main() -> None:
    """Start the server, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=5000)
    parser.add_argument("--planned", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--at-once", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        directory = folder / "kv7"
        directory.mkdir()
        town = Town(options.stops, options.planned, directory)
        town.write_timetable()
        messages = town.messages()
        publisher = zmq.Context().socket(zmq.PUB)
        publisher.set_hwm(100_000)
        feed_port = publisher.bind_to_random_port("tcp://127.0.0.1")
        arguments = (
            "--source=kv78turbo", f"--feed=tcp://127.0.0.1:{feed_port}", "--gtfs=", f"--timetable={directory}",
            f"--statistics={folder / 'statistics.log'}", f"--snapshot={folder / 'snapshot'}",
        )  # fmt: skip
        try:
            with govi_cache(folder, FIRST_PORT, *arguments, path="/lastupdate") as server:
                measure(server, town, messages, publisher, options)
        finally:
            print(next(folder.glob("govi-cache*.log")).read_text()[-6000:])


def measure(server: Running, town: Town, messages: list[bytes], publisher: Any, options: argparse.Namespace) -> None:
    """Load the feed, and print a table of requests."""
    port, admin = server.port, server.port + 1
    good = Watch(port, f"/kv55/{town.codes[0]}")
    good.start()
    time.sleep(1)
    for message in messages:
        publisher.send_multipart([b"/GOVI/KV8passtimes/OWN", message])
        time.sleep(0.01)
    while True:
        text = http_text(admin, "/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
        if float(values["govi_feed_planned_passes"]) == town.stops * 20 * options.planned:
            break
        time.sleep(0.5)
    print(
        f"loaded: {values['govi_feed_passes']} live, {values['govi_feed_planned_passes']} planned; "
        f"others waited {good.worst * 1000:.0f} ms at most"
    )
    requests = {name: request for name, request in town.requests().items() if options.only in name}
    print("| request | path bytes | status | kB | seconds | processor s | longest wait of another client, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (path, headers) in requests.items():
        good.worst, before = 0.0, server.cpu()
        status, size, seconds = get(port, path, headers)
        time.sleep(0.1)
        print(
            f"| {name} | {len(path)} | {status} | {size / 1000:.0f} | {seconds:.2f} | {server.cpu() - before:.2f} | "
            f"{good.worst * 1000:.0f} |",
            flush=True,
        )
    for path in ("/metrics", "/status", "/status.json"):
        good.worst = 0.0
        http_text(admin, path)
        time.sleep(0.1)
        print(f"| admin {path} | | | | | | {good.worst * 1000:.0f} |", flush=True)
    for name in ("line", "line actuals", "stopareacode", "tpc day", "board json", "journey"):
        if name not in requests:
            continue
        path, headers = requests[name]
        good.worst, before, began = 0.0, server.cpu(), time.perf_counter()
        threads = [threading.Thread(target=get, args=(port, path, headers)) for _ in range(options.at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(
            f"| {options.at_once} x {name} at once | | | | {time.perf_counter() - began:.2f} | "
            f"{server.cpu() - before:.2f} | {good.worst * 1000:.0f} |",
            flush=True,
        )
    for line in http_text(admin, "/metrics").splitlines():
        if "turn" in line:
            print(line)
    good.running = False


def http_text(port: int, path: str) -> str:
    """Return a body of the operators' port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


if __name__ == "__main__":
    main()
