"""Tests of the messages between the main process and a worker."""

import contextlib
from typing import get_args, get_type_hints

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.log import format_line
from govi_server.statistics.records import (
    CACHE_RESULTS,
    ENDS,
    PHASES,
    ConnectionStatistics,
    Exchange,
    RequestStatistics,
)
from govi_server.workers.messages import (
    Figures,
    LogLine,
    Statistics,
    _Connection,
    _Exchange,
    decode_report,
    encode,
    pack_statistics,
    unpack_statistics,
)

texts = st.text(max_size=20)
seconds = st.floats(0, 1e9)
exchanges = st.builds(
    Exchange,
    st.none() | texts,
    st.none() | texts,
    st.none() | st.integers(100, 599),
    st.integers(0, 1 << 40),
    st.sampled_from(CACHE_RESULTS),
    st.none() | texts,
    texts,
)
requests = st.builds(RequestStatistics, exchanges, st.just(0.0), *[st.none() | st.floats(0, 100)] * 6)
connections = st.builds(
    ConnectionStatistics,
    st.just("govi-cache"),
    texts,
    seconds,
    seconds,
    st.sampled_from(ENDS),
    st.lists(requests, max_size=3),
)


def _received(sent: list[ConnectionStatistics], worker: int = 1) -> list[ConnectionStatistics]:
    """Return connections as the main process gets them from a worker."""
    report = decode_report(encode(pack_statistics(sent)))
    assert isinstance(report, Statistics)
    return unpack_statistics(report, "govi-cache", worker)


class StatisticsTests(SynchronousTestCase):
    """Tests of the statistics of a worker's connections."""

    @given(st.lists(connections, max_size=3))
    def test_line_in_the_log_is_the_same(self, sent: list[ConnectionStatistics]) -> None:
        """The log has the same line for a connection of a worker, except for the worker."""
        lines = [format_line({"statistics": each}, "govi-cache") for each in _received(sent, worker=7)]
        for each in sent:
            each.worker = 7
        self.assertEqual(lines, [format_line({"statistics": each}, "govi-cache") for each in sent])

    def test_fields_are_those_of_the_records(self) -> None:
        """A report has each field of the records, in their order: it is filled, and read again, by position."""
        names = {struct: struct.__struct_fields__ for struct in (Exchange, RequestStatistics, ConnectionStatistics)}
        self.assertEqual(_Exchange.__struct_fields__, names[Exchange])
        self.assertEqual((*_Connection.__struct_fields__, "worker"), names[ConnectionStatistics][1:])
        self.assertEqual(("exchange", "marked", *PHASES), names[RequestStatistics])
        (request,) = get_args(get_type_hints(_Connection)["requests"])
        self.assertEqual(len(get_args(request)), len(("exchange", *PHASES)))

    def test_values_arrive_in_their_fields(self) -> None:
        """Each field of a request arrives as it was sent, all of them with different values."""
        exchange = Exchange("GET", "/kv55/57330430", 200, 7154, "hit", "kv55", "57330430")
        request = RequestStatistics(exchange, 0.0, *map(float, range(1, len(PHASES) + 1)))
        (connection,) = _received([ConnectionStatistics("govi-cache", "local", 1.0, 2.0, "client", [request])])
        (received,) = connection.requests
        self.assertEqual(msgspec.structs.asdict(received.exchange), msgspec.structs.asdict(exchange))
        self.assertEqual(received.phases, {phase: n for n, phase in enumerate(PHASES, 1)})

    def test_equal_exchanges_are_shared(self) -> None:
        """Hits share their exchange, also those of different reports, so that they are counted together."""
        hit = Exchange("GET", "/kv55/57330430", 200, 7154, "hit", "kv55", "57330430")
        sent = [ConnectionStatistics("govi-cache", "local", 1.0, 2.0, "client", [RequestStatistics(hit)] * 3)] * 2
        self.assertEqual(len(pack_statistics(sent).exchanges), 1)
        received = [*_received(sent), *_received(sent)]
        self.assertEqual(len({id(request.exchange) for each in received for request in each.requests}), 1)

    def test_unknown_exchange(self) -> None:
        """A request of an exchange that the report does not have is an error."""
        sent = [ConnectionStatistics("govi-cache", "local", 1.0, 2.0, "client", [RequestStatistics(Exchange())])]
        report = pack_statistics(sent)
        report.exchanges.clear()
        self.assertRaises(IndexError, unpack_statistics, report, "govi-cache", 1)

    @example(b"\x91\xa3\x00\x00\x80")  # no UTF-8
    @given(st.binary(max_size=40))
    def test_other_bytes(self, data: bytes) -> None:
        """Bytes that are no report are an error that the main process expects, and never another."""
        with contextlib.suppress(ValueError):
            self.assertIsInstance(decode_report(data), Figures | LogLine | Statistics)
