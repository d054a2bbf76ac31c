"""The load of the benchmarks counts what came while all clients were at work."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat

import pytest

from tests.bench.load import Load, drive, from_pool

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"1")

    def log_message(self, *_about: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_ends_of_a_round_are_left_out(port: int) -> None:
    load = drive(port, [from_pool(repeat(REQUEST)) for _client in range(4)], seconds=1)
    (first, since), (last, until) = load.full
    # Whoever ended first left three others with a request under way.
    assert 4 <= first < last == len(load.answers) - 3
    assert 0 < since < until < load.seconds
    load.seconds = until - since
    assert load.at_work() == (load.answers[first:last], until - since)


def test_one_request_each_counts_whole(port: int) -> None:
    pile = iter([REQUEST] * 4)
    load = drive(port, [from_pool(pile) for _client in range(4)])
    assert load.at_work() == (load.answers, load.seconds)
    assert len(load.answers) == 4


def test_a_round_that_is_mostly_ends_counts_whole() -> None:
    load = Load(10, answers=[b"1"] * 9, full=[(4, 3), (6, 7)])
    assert load.at_work() == (load.answers, 10)
    load.full = [(4, 2), (8, 7)]
    assert load.at_work() == ([b"1"] * 4, 5)
