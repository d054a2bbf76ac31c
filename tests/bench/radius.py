"""One event a request against an accounting-stop of FreeRADIUS: 64 in flight on either side."""

import hashlib
import os
import random
import selectors
import socket
import struct
import time

from tests.bench import freeradius, world
from tests.bench.figures import Figure, Run, interleave
from tests.bench.ingest import SINGLE_CLIENTS, single_rate, site
from tests.bench.web import free_port

ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE = 4, 5
STOP = 2
RESEND_SECONDS = 2.0
IDENTIFIERS = 256  # of one socket
PACKETS_PER_SECOND = 20_000  # prepared; more than the server will take


def single_freeradius(run: Run) -> Figure:
    """The telecom classic writes a row per stop; it knows of no tokens and no balance."""
    port = free_port()
    with freeradius.serving(port), site() as at, world.connect(freeradius.DATABASE) as connection:
        single_rate(at, run.seconds)
        sent = [0]

        def stops() -> float:
            taken, rate = drive(port, seconds=run.seconds)
            sent[0] += taken
            return rate

        stops()
        figure = interleave(run, lambda: single_rate(at, run.seconds), stops, unit="requests/s")
        stored = connection.execute("SELECT COUNT(*) FROM radacct").fetchone()
        assert stored == (sent[0],), (stored, sent)
        figure.notes.append("every acknowledged stop is a row of radacct")
        return figure


def packet(identifier: int) -> bytes:
    """An Accounting-Request (RFC 2866) for a session that just ended."""
    number = random.randrange(world.SUBSCRIBERS) + 1
    msisdn = world.msisdn(number).encode()
    attributes = b"".join(
        (
            attribute(40, struct.pack("!I", STOP)),
            attribute(1, msisdn),
            attribute(4, socket.inet_aton("127.0.0.1")),
            attribute(5, struct.pack("!I", number)),
            attribute(44, os.urandom(12).hex().encode()),
            attribute(31, msisdn),
            attribute(46, struct.pack("!I", random.randint(1, 3600))),
            attribute(42, struct.pack("!I", random.randint(50, 4000))),
            attribute(43, struct.pack("!I", random.randint(10, 1500))),
            attribute(49, struct.pack("!I", 1)),
        )
    )
    head = struct.pack("!BBH", ACCOUNTING_REQUEST, identifier, 20 + len(attributes))
    secret = freeradius.SECRET.encode()
    # RFC 2866 asks for MD5; nothing here is secret.
    sign = hashlib.md5(head + bytes(16) + attributes + secret, usedforsecurity=False).digest()
    return head + sign + attributes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute as it goes over the wire."""
    return struct.pack("!BB", kind, 2 + len(value)) + value


def drive(port: int, *, seconds: float) -> tuple[int, float]:
    """(how many stops were acknowledged, how many a second), with 64 in flight."""
    ready = [packet(number % IDENTIFIERS) for number in range(int(PACKETS_PER_SECOND * seconds))]
    flying: dict[int, tuple[bytes, float]] = {}
    done = sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line, _reading(line) as selector:
        line.connect(("127.0.0.1", port))
        line.setblocking(False)
        started = time.perf_counter()
        while True:
            now = time.perf_counter()
            over = now - started >= seconds or sent == len(ready)
            while not over and len(flying) < SINGLE_CLIENTS and sent % IDENTIFIERS not in flying:
                flying[sent % IDENTIFIERS] = ready[sent], now
                line.send(ready[sent])
                sent += 1
            if not flying:
                return done, done / (now - started)
            assert now - started < seconds + 30, "FreeRADIUS fell silent"
            if not selector.select(timeout=0.1):
                _resend(line, flying, now)
                continue
            done += _acknowledged(line, flying)


def _reading(line: socket.socket) -> selectors.BaseSelector:
    selector = selectors.DefaultSelector()
    selector.register(line, selectors.EVENT_READ)
    return selector


def _acknowledged(line: socket.socket, flying: dict[int, tuple[bytes, float]]) -> int:
    """Take in every answer that is there."""
    count = 0
    while True:
        try:
            answer = line.recv(4096)
        except BlockingIOError:
            return count
        if answer[0] == ACCOUNTING_RESPONSE and flying.pop(answer[1], None) is not None:
            count += 1


def _resend(line: socket.socket, flying: dict[int, tuple[bytes, float]], now: float) -> None:
    """What got no answer in time is sent again, unchanged, as RADIUS does."""
    for identifier, (body, at) in list(flying.items()):
        if now - at > RESEND_SECONDS:
            flying[identifier] = body, now
            line.send(body)
