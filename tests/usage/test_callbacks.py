"""What nodes are told: when, how it is signed, and where it never goes."""

import base64
import gc
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, cast

import pytest
from django.db import connection, transaction
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import lifecycle
from accounts.models import Subscriber
from usage import callbacks, webhooks
from usage.database import fast_cursor
from usage.granting import grant_many
from usage.ledger import Grant
from usage.models import Callback, Node, QuotaSession
from usage.nodes import create_node

from .conftest import BORN, END, HOUR, NOON, SECOND, START, give


class Receiver(ThreadingHTTPServer):
    """A node's own listener on this machine; it notes what it gets."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[http.client.HTTPMessage, bytes]] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.drip = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/told?node=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((cast(HTTPMessage, self.headers), body))
        if self.server.drip:
            try:
                for _byte in range(40):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    Barrier(2).wait(0.1)
            except (OSError, BaseException):
                return
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def inside(settings: Settings) -> None:
    """Callbacks may go to addresses of the inside, as in a carrier's own network."""
    settings.CALLBACK_ALLOW_PRIVATE = True


@pytest.fixture
def receiver(inside: None) -> Iterator[Receiver]:
    server = Receiver()
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def session(
    node: Node, owner: Subscriber, name: str = "s1", *, url: str = "", state: str = "idle"
) -> QuotaSession:
    return QuotaSession.objects.create(
        ref=f"qs_{name}", node_id=node.pk, session=name, subject=owner.msisdn,
        subscriber_id=owner.pk, model="plain", state=state, sequence=0,
        notify_url=url or "https://node.example/told", created_at=NOON,
        supervised_until=NOON + HOUR,
    )  # fmt: skip


def told() -> list[tuple[str, str]]:
    names = dict(QuotaSession.objects.values_list("id", "session"))
    rows = Callback.objects.order_by("id").values_list("session_id", "kind")
    return [(names[session_id], kind) for session_id, kind in rows]


def announce(owner: Subscriber, cause: str, kind: str = "REAUTHORIZE") -> None:
    with transaction.atomic(), fast_cursor() as cursor:
        callbacks.announce(cursor, subscriber_ids=[owner.pk], kind=kind, cause=cause, now=NOON)


# --- who is told, and when -----------------------------------------------------------------------


def test_a_top_up_tells_living_sessions_with_an_address(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    for state in QuotaSession.State.values:
        session(node, subscriber, state, state=state)
    session(node, neighbour, "neighbour")
    QuotaSession.objects.filter(session="neighbour").update(notify_url="")
    silent = session(node, subscriber, "silent")
    QuotaSession.objects.filter(pk=silent.pk).update(notify_url="")
    give(subscriber, 5, now=NOON, key="top-up")
    give(neighbour, 5, now=NOON)
    assert told() == [("open", "REAUTHORIZE"), ("idle", "REAUTHORIZE")]
    body = Callback.objects.order_by("id")[0].body
    assert body == {
        "type": "REAUTHORIZE",
        "timestamp": NOON.isoformat(),
        "data": {"ref": "qs_open", "session": "open", "subject": "+8613900000001"},
    }


def test_a_grant_tells_once_however_often_it_is_repeated(
    node: Node, subscriber: Subscriber
) -> None:
    session(node, subscriber)
    for _again in range(3):
        give(subscriber, 5, now=NOON, key="top-up")
        Callback.objects.update(attempts=1)
    assert told() == [("s1", "REAUTHORIZE")]


def test_grants_before_the_message_has_gone_out_are_one_message(
    node: Node, subscriber: Subscriber
) -> None:
    session(node, subscriber)
    give(subscriber, 5, now=NOON)
    give(subscriber, 5, now=NOON)
    assert told() == [("s1", "REAUTHORIZE")]
    Callback.objects.update(attempts=1)
    give(subscriber, 5, now=NOON)
    assert told() == [("s1", "REAUTHORIZE")] * 2


def test_a_grant_of_the_future_tells_nothing(node: Node, subscriber: Subscriber) -> None:
    session(node, subscriber)
    give(subscriber, 5, start=NOON + SECOND, now=NOON)
    assert told() == []


def test_many_grants_at_once_tell_each_subscriber(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    session(node, subscriber, "a")
    session(node, neighbour, "b")
    grants = [
        Grant(
            subscriber_id=owner.pk, kind="plan", name="月包", name_en="month", amount_mt=1000,
            valid_from=START, valid_until=END, key=f"many:{owner.pk}", priority=50,
        )
        for owner in (subscriber, neighbour)
    ]  # fmt: skip
    grant_many(grants=grants, now=NOON)
    grant_many(grants=grants, now=NOON)
    assert told() == [("a", "REAUTHORIZE"), ("b", "REAUTHORIZE")]


def suspend(owner: Subscriber, now: datetime = NOON) -> None:
    lifecycle.suspend(subscriber_id=owner.pk, actor="clerk", reason="fraud", now=now)


def test_a_suspension_ends_sessions_and_its_end_lets_them_ask(
    node: Node, subscriber: Subscriber
) -> None:
    session(node, subscriber)
    suspend(subscriber)
    assert told() == [("s1", "ABORT")]
    give(subscriber, 5, now=NOON)  # whoever is suspended has nothing to ask for
    assert told() == [("s1", "ABORT")]
    lifecycle.resume(subscriber_id=subscriber.pk, actor="clerk", reason="paid", now=NOON)
    assert told() == [("s1", "ABORT"), ("s1", "REAUTHORIZE")]


def test_a_termination_ends_sessions(node: Node, subscriber: Subscriber) -> None:
    session(node, subscriber)
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="asked", now=NOON)
    assert told() == [("s1", "ABORT")]


def test_nothing_is_told_of_what_is_rolled_back(node: Node, subscriber: Subscriber) -> None:
    session(node, subscriber)
    with pytest.raises(RuntimeError), transaction.atomic():
        suspend(subscriber)
        raise RuntimeError
    assert told() == []


# --- how it travels ------------------------------------------------------------------------------


def test_the_signature_is_that_of_standard_webhooks() -> None:
    assert (
        webhooks.signature(
            secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp=1614265330,
            body=b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_node_gets_a_signed_message(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    assert callbacks.deliver_due(now=NOON) == 1
    ((headers, body),) = receiver.got
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(node.callback_secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["type"] == "ABORT"
    assert json.loads(body)["data"]["session"] == "s1"
    row = Callback.objects.get()
    assert (row.state, row.attempts, row.sent_at) == ("sent", 1, NOON)
    assert callbacks.deliver_due(now=NOON + HOUR) == 0
    assert len(receiver.got) == 1


def test_a_message_is_tried_for_twelve_hours_under_one_id(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    receiver.status = 503
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    now, waits = NOON, []
    for _attempt in range(50):
        callbacks.deliver_due(now=now)
        row = Callback.objects.get()
        if row.state != "waiting":
            break
        assert row.last_error == "Answered 503."
        waits.append(row.next_attempt_at - now)
        assert callbacks.deliver_due(now=row.next_attempt_at - SECOND) == 0
        now = row.next_attempt_at
    assert row.state == "failed"
    assert waits == sorted(waits)
    assert timedelta(hours=11) < now - NOON < timedelta(hours=13)
    assert len(receiver.got) == callbacks.MAX_ATTEMPTS
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 1
    assert len({body for _headers, body in receiver.got}) == 1


def test_a_message_arrives_when_the_node_is_back(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    receiver.status = 500
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    assert callbacks.deliver_due(now=NOON) == 0
    receiver.status = 200
    assert callbacks.deliver_due(now=NOON + 10 * SECOND) == 1
    assert Callback.objects.get().last_error == ""


def test_gone_is_the_end(node: Node, subscriber: Subscriber, receiver: Receiver) -> None:
    receiver.status = 410
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    callbacks.deliver_due(now=NOON)
    assert Callback.objects.get().state == "failed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    node: Node, subscriber: Subscriber, receiver: Receiver, status: int
) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    assert callbacks.deliver_due(now=NOON) == 0
    assert len(receiver.got) == 1
    row = Callback.objects.get()
    assert (row.state, row.last_error) == (
        "waiting", f"Answered {status}; redirects are not followed."
    )  # fmt: skip


def test_an_older_word_is_not_sent_behind_a_newer_one(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    receiver.status = 503
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    callbacks.deliver_due(now=NOON)
    receiver.status = 200
    lifecycle.resume(subscriber_id=subscriber.pk, actor="clerk", reason="paid", now=NOON)
    callbacks.deliver_due(now=NOON + HOUR)
    assert [json.loads(body)["type"] for _headers, body in receiver.got] == [
        "ABORT", "REAUTHORIZE",
    ]  # fmt: skip
    assert [row.state for row in Callback.objects.order_by("id")] == ["failed", "sent"]


def test_no_older_word_is_sent_before_its_step_has_closed_it(
    node: Node, subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_MOST_OVERTAKEN", 1)
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    lifecycle.resume(subscriber_id=subscriber.pk, actor="clerk", reason="paid", now=NOON)
    suspend(subscriber)
    states = []
    for _round in range(2):
        callbacks.deliver_due(now=NOON)
        states.append([row.state for row in Callback.objects.order_by("id")])
    assert states == [["failed", "waiting", "sent"], ["failed", "failed", "sent"]]
    assert [json.loads(body)["type"] for _headers, body in receiver.got] == ["ABORT"]


def test_a_server_that_drips_is_cut_off(
    node: Node, subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.4)
    receiver.drip = True
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    assert callbacks.deliver_due(now=NOON) == 0
    assert Callback.objects.get().last_error.startswith("No answer: ")


def test_a_node_that_is_down_is_tried_again(
    node: Node, subscriber: Subscriber, inside: None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        session(node, subscriber, url=url)
        suspend(subscriber)
        assert callbacks.deliver_due(now=NOON) == 0
    row = Callback.objects.get()
    assert (row.state, row.next_attempt_at) == ("waiting", NOON + 10 * SECOND)
    assert row.last_error.startswith("Not reached: ")


def test_a_silent_node_does_not_hold_up_what_others_are_told(
    node: Node, subscriber: Subscriber, neighbour: Subscriber, receiver: Receiver
) -> None:
    """Each of its messages would take a worker's time until the limit, for nothing."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        for number in range(100):
            session(node, subscriber, f"s{number}", url=url)
        suspend(subscriber)
    other, _token = create_node(name="n2", now=BORN)
    session(other, neighbour, "other", url=receiver.url)
    suspend(neighbour)
    assert callbacks.deliver_due(now=NOON) == 1
    tried = Callback.objects.filter(node_id=node.pk, attempts=1)
    assert tried.count() == callbacks._CHUNK
    left = Callback.objects.filter(node_id=node.pk, attempts=0)
    assert set(left.values_list("state", "next_attempt_at")) == {
        ("waiting", NOON + callbacks.PAUSE)
    }
    left.update(url=receiver.url)  # the node is back
    assert callbacks.deliver_due(now=NOON + callbacks.PAUSE - SECOND) == 0
    assert callbacks.deliver_due(now=NOON + callbacks.PAUSE) == 100 - callbacks._CHUNK


def test_a_node_that_refuses_a_message_gets_its_others(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    receiver.status = 500
    for number in range(2 * callbacks._CHUNK):
        session(node, subscriber, f"s{number}", url=receiver.url)
    suspend(subscriber)
    callbacks.deliver_due(now=NOON)
    assert len(receiver.got) == 2 * callbacks._CHUNK


def test_nothing_is_sent_while_a_transaction_is_open(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    session(node, subscriber, url=receiver.url)
    with transaction.atomic():
        suspend(subscriber)
        assert receiver.got == []
    assert receiver.got == []


@pytest.mark.django_db(transaction=True)
def test_eight_workers_at_once_send_each_message_once(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    for number in range(40):
        session(node, subscriber, f"s{number}", url=receiver.url)
    suspend(subscriber)
    start = Barrier(8)

    def work(_worker: int) -> int:
        try:
            start.wait(10)
            return callbacks.deliver_due(now=NOON)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 40
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 40
    assert len(receiver.got) == 40


KILLED = """
import os, signal, sys
import django
django.setup()
from django.db import connections
connections["default"].settings_dict["NAME"] = sys.argv[1]
from datetime import datetime
from usage import callbacks
callbacks._mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
callbacks.deliver_due(now=datetime.fromisoformat(sys.argv[2]))
"""


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_before_it_marks_sends_again_under_the_same_id(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, connection.settings_dict["NAME"], NOON.isoformat()],
        cwd=root,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "CALLBACK_ALLOW_PRIVATE": "true",
            "VAR_DIR": str(Path(os.environ["VAR_DIR"]).parent),
        },
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(receiver.got) == 1
    assert Callback.objects.get().state == "waiting"
    assert callbacks.deliver_due(now=NOON + SECOND) == 0  # the dead worker's lease runs
    assert callbacks.deliver_due(now=NOON + timedelta(minutes=11)) == 1
    first, second = receiver.got
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]


def test_a_row_whose_last_attempt_was_killed_is_closed(node: Node, subscriber: Subscriber) -> None:
    session(node, subscriber)
    suspend(subscriber)
    Callback.objects.update(attempts=callbacks.MAX_ATTEMPTS)
    assert callbacks.deliver_due(now=NOON) == 0
    assert Callback.objects.get().state == "failed"


def test_settled_messages_are_forgotten_after_a_month(node: Node, subscriber: Subscriber) -> None:
    session(node, subscriber)
    announce(subscriber, "a")
    later = NOON + callbacks.KEPT + SECOND
    assert callbacks.purge(now=later) == 0  # it waits
    Callback.objects.update(state="sent")
    assert callbacks.purge(now=NOON + callbacks.KEPT) == 0
    assert callbacks.purge(now=later) == 1


# --- where it goes -------------------------------------------------------------------------------

NOWHERE = "0.0.0.0"  # noqa: S104 (it is refused)
NEVER_THERE = [
    "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "169.254.169.254", NOWHERE, "255.255.255.255", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "::1", "::",
    "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001::1",
]  # fmt: skip
ANYWHERE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", NEVER_THERE)
def test_addresses_of_the_inside_are_never_reached(address: str) -> None:
    assert webhooks.refused_of(["8.8.8.8", address]) == address


@pytest.mark.parametrize("address", ANYWHERE)
def test_addresses_of_the_open_network_are(address: str) -> None:
    assert webhooks.refused_of([address]) == ""


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "fd12:3456::1", "8.8.8.8"])
def test_private_addresses_may_be_allowed(inside: None, address: str) -> None:
    assert webhooks.refused_of([address]) == ""


@pytest.mark.parametrize("address", ["169.254.169.254", "224.0.0.1", NOWHERE, "fe80::1", "::"])
def test_link_local_and_many_at_once_never_are(inside: None, address: str) -> None:
    assert webhooks.refused_of([address]) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://node.example/", "ftp://node.example/", "file:///etc/passwd", "//node.example/",
        "https://", "https:///x", "https://user:secret@node.example/", "https://node.example/#x",
        "https://node.example:0/", "https://node.example:99999/", "https://node.example:x/",
        "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data", "https://node.example/\r\nHost: x", "",
        "https://node.example/" + "x" * 500, "https://节点.example/", "https://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_an_unfit_address_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(webhooks.UnfitUrl):
        webhooks.check_url(url)


@pytest.mark.parametrize("url", ["https://node.example/told?a=1", "https://8.8.8.8:8443/"])
def test_a_fit_address_is_taken(url: str) -> None:
    webhooks.check_url(url)


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost."]
)
def test_a_name_that_leads_inside_is_found_when_it_is_resolved(host: str) -> None:
    with pytest.raises(webhooks.NotDelivered, match=r"leads to|not resolved"):
        webhooks.post(
            url=f"https://{host}/", secret="whsec_", message_id="m", timestamp=1, body=b"{}"
        )


def test_one_address_of_the_inside_among_others_spoils_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
        for address in ("8.8.8.8", "10.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(webhooks.NotDelivered, match=r"10\.0\.0\.1"):
        webhooks.resolve(webhooks.check_url("https://node.example/"))


def test_a_name_is_resolved_once_and_its_address_is_what_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name does not exist: only the looked-at address can lead to the receiver."""
    asked = []

    def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    port = receiver.server_address[1]
    parts = webhooks.check_url(f"http://node.invalid:{port}/")
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    addresses = webhooks.resolve(parts)
    monkeypatch.undo()
    monkeypatch.setattr(webhooks, "resolve", lambda _parts: addresses)
    webhooks.post(
        url=f"http://node.invalid:{port}/", secret="whsec_", message_id="m", timestamp=1, body=b"1"
    )
    assert asked == ["node.invalid"]
    assert receiver.got[0][0]["Host"] == f"node.invalid:{port}"


def test_a_private_address_taken_earlier_is_refused_once_it_is_forbidden(
    node: Node, subscriber: Subscriber, receiver: Receiver, settings: Settings
) -> None:
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    settings.CALLBACK_ALLOW_PRIVATE = False
    assert callbacks.deliver_due(now=NOON) == 0
    assert Callback.objects.get().state == "failed"
    assert receiver.got == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for `localhost` alone, with its key."""
    path = tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7300 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {path} -out {path}.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_https_asks_for_a_certificate_of_the_name(
    receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    port = receiver.server_address[1]

    def call(host: str) -> None:
        webhooks.post(
            url=f"https://{host}:{port}/", secret="whsec_", message_id="m", timestamp=1, body=b"{}"
        )

    with pytest.raises(webhooks.NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        call("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    call("localhost")
    with pytest.raises(webhooks.NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        call("127.0.0.1")
    assert len(receiver.got) == 1


def test_a_node_renews_its_secret_and_sees_it_once(node: Node, collector: APIClient) -> None:
    assert node.callback_secret.startswith("whsec_")
    answer = collector.post("/api/v1/nodes/me/callback-secret")
    secret = answer.json()["callback_secret"]
    assert answer["Cache-Control"] == "no-store"
    node.refresh_from_db()
    assert node.callback_secret == secret
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert secret not in collector.get("/api/v1/nodes/me").content.decode()


def test_a_node_of_old_without_a_secret_gets_one(
    node: Node, subscriber: Subscriber, receiver: Receiver
) -> None:
    Node.objects.update(callback_secret="")
    session(node, subscriber, url=receiver.url)
    suspend(subscriber)
    assert callbacks.deliver_due(now=NOON) == 1
    assert Node.objects.get().callback_secret.startswith("whsec_")


# Python's TLS leaves the lost socket to the collector, which closes it with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_hangs_up_before_tls_begins_has_not_got_the_message(
    inside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_connect = socket.create_connection
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def connect_and_lose(address: tuple[str, int], timeout: int) -> socket.socket:
            sock = really_connect(address, timeout)
            peer, _address = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()  # by a reset
            return sock

        monkeypatch.setattr(socket, "create_connection", connect_and_lose)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(webhooks.NotDelivered):
            webhooks.post(url=url, secret="whsec_", message_id="m", timestamp=1, body=b"{}")
    gc.collect()
