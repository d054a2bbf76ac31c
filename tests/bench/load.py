"""The load: a few keep-alive connections of one process, each sending its next request at once.

Requests are ready-made bytes, so that the client takes little of the processors it shares.
"""

import selectors
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

GIVE_UP_SECONDS = 120

# What one client sends: it yields requests and is sent the body of each answer.
Script = Generator[bytes, bytes, None]


class LoadFailed(Exception):
    """An answer that is not a success, or none in time."""


@dataclass
class Load:
    """What came back: bodies of the answers, the seconds of each, and of the whole. `full` are the
    moments, as (answers so far, seconds so far), when each client had an answer, and when the first
    of them had nothing more to send."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    full: list[tuple[int, float]] = field(default_factory=list)

    def at_work(self) -> tuple[Sequence[bytes], float]:
        """The answers that came while all clients were at work, and how long that was: a round's
        ends say nothing about how fast the server is. All, when that was less than half of it."""
        if len(self.full) == 2:
            (first, since), (last, until) = self.full
            if 2 * (until - since) >= self.seconds:
                return self.answers[first:last], until - since
        return self.answers, self.seconds

    def rate(self, per_request: int = 1) -> float:
        """Things per second, when each request carries `per_request` of them."""
        return len(self.latencies) * per_request / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        return percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """What this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def from_pool(requests: Iterator[bytes]) -> Script:
    """A client that takes the next request from a pile it shares with the others."""
    # Not `yield from`: a plain iterator takes no answers.
    for request in requests:  # noqa: UP028
        yield request


def drive(port: int, scripts: Iterable[Script], *, seconds: float = GIVE_UP_SECONDS) -> Load:
    """Run one client per script until all end, or until the first answer after `seconds`.

    Raises LoadFailed for an answer outside of 2xx, and when the server falls silent.
    """
    return _Driver(port, seconds).run(list(scripts))


@dataclass
class _Client:
    script: Script
    connection: socket.socket
    unsent: memoryview = memoryview(b"")
    awaits: int = selectors.EVENT_READ
    sent_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)
    expected: int = -1  # bytes of the whole answer, once its head is there
    head: int = 0
    answered: bool = False


class _Driver:
    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._selector = selectors.DefaultSelector()
        self._load = Load()
        self._open = 0
        self._clients = self._without_answer = 0

    def run(self, scripts: list[Script]) -> Load:
        clients = [_Client(script, self._connect()) for script in scripts]
        self._started = started = time.perf_counter()
        self._until = started + self._seconds
        self._clients = self._open = self._without_answer = len(clients)
        try:
            for client in clients:
                self._selector.register(client.connection, selectors.EVENT_READ, client)
                self._next(client, None)
            while self._open:
                ready = self._selector.select(timeout=GIVE_UP_SECONDS)
                if not ready:
                    raise LoadFailed(f"no answer for {GIVE_UP_SECONDS} s")
                for key, events in ready:
                    if events & selectors.EVENT_WRITE:
                        self._send(key.data)
                    if events & selectors.EVENT_READ:
                        self._receive(key.data)
        finally:
            self._load.seconds = time.perf_counter() - started
            for client in clients:
                client.connection.close()
            self._selector.close()
        return self._load

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection

    def _next(self, client: _Client, answer: bytes | None) -> None:
        try:
            request = next(client.script) if answer is None else client.script.send(answer)
            if time.perf_counter() > self._until:
                raise StopIteration
        except StopIteration:
            if len(self._load.full) == 1:
                self._note()
            self._selector.unregister(client.connection)
            self._open -= 1
            return
        client.unsent = memoryview(request)
        client.sent_at = time.perf_counter()
        self._send(client)

    def _send(self, client: _Client) -> None:
        try:
            sent = client.connection.send(client.unsent)
        except BlockingIOError:
            sent = 0
        client.unsent = client.unsent[sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if client.awaits != wanted:
            client.awaits = wanted
            self._selector.modify(client.connection, wanted, client)

    def _receive(self, client: _Client) -> None:
        chunk = client.connection.recv(16384)
        if not chunk:
            raise LoadFailed("the server closed the connection")
        client.received += chunk
        if client.expected < 0:
            _read_head(client)
        if 0 <= client.expected <= len(client.received):
            self._load.latencies.append(time.perf_counter() - client.sent_at)
            body = bytes(client.received[client.head : client.expected])
            client.received.clear()
            client.expected = -1
            self._load.answers.append(body)
            if not client.answered:
                client.answered = True
                self._without_answer -= 1
                if not self._without_answer and self._open == self._clients:
                    self._note()
            self._next(client, body)

    def _note(self) -> None:
        now = time.perf_counter() - self._started
        self._load.full.append((len(self._load.answers), now))


def _read_head(client: _Client) -> None:
    end = client.received.find(b"\r\n\r\n")
    if end < 0:
        return
    head = bytes(client.received[:end]).lower()
    client.head = end + 4
    name = b"\r\ncontent-length:"
    at = head.find(name)
    assert at >= 0, head
    client.expected = client.head + int(head[at + len(name) :].split(b"\r\n", 1)[0])
    if not head.startswith((b"http/1.1 200", b"http/1.1 201")):
        raise LoadFailed(bytes(client.received[:600]).decode(errors="replace"))
