import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread

import pytest
from django.db import connection, transaction
from pytest_django import Settings

from accounts import outbox, tasks
from accounts.models import OutboxMessage

SECOND = timedelta(seconds=1)


class Gateway(ThreadingHTTPServer):
    """A real SMS gateway on this machine that notes what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, bytes]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/sms"


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers["Idempotency-Key"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    server = Gateway()
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    settings.SMS_SENDER = "accounts.senders.WebhookSender"
    settings.SMS_WEBHOOK_URL = server.url
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def write(key: str, now: datetime) -> bool:
    return outbox.enqueue(
        key=key, recipient="+8613900000001", template="threshold", body="用量 80%", now=now
    )


@pytest.mark.django_db
def test_a_key_is_written_once(noon: datetime) -> None:
    assert write("a", noon)
    assert not write("a", noon)
    assert OutboxMessage.objects.count() == 1


@pytest.mark.django_db
def test_a_message_of_an_undone_transaction_is_never_sent(noon: datetime, gateway: Gateway) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        write("a", noon)
        raise RuntimeError
    assert outbox.deliver_due(now=noon) == 0
    assert gateway.got == []


@pytest.mark.django_db
def test_due_messages_go_to_the_gateway_once(noon: datetime, gateway: Gateway) -> None:
    for key in "abc":
        write(key, noon)
    write("later", noon + SECOND)
    assert outbox.deliver_due(now=noon) == 3
    assert outbox.deliver_due(now=noon) == 0
    assert [key for key, _ in gateway.got] == ["a", "b", "c"]
    assert "用量 80%" in gateway.got[0][1].decode()
    sent = OutboxMessage.objects.get(key="a")
    assert (sent.state, sent.sent_at, sent.attempts) == ("sent", noon, 1)


@pytest.mark.django_db
def test_the_limit_bounds_one_run(noon: datetime, gateway: Gateway) -> None:
    for number in range(45):
        write(str(number), noon)
    assert outbox.deliver_due(now=noon, limit=41) == 41
    assert outbox.deliver_due(now=noon) == 4


@pytest.mark.django_db
def test_a_failing_gateway_is_tried_again_ever_later_and_not_for_ever(
    noon: datetime, gateway: Gateway
) -> None:
    gateway.status = 500
    write("a", noon)
    message = OutboxMessage.objects.get()
    waits = []
    for _ in range(outbox.MAX_ATTEMPTS):
        due = message.next_attempt_at
        assert outbox.deliver_due(now=due - SECOND) == 0
        assert outbox.deliver_due(now=due) == 0
        message.refresh_from_db()
        waits.append((message.next_attempt_at - due) // SECOND)
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert (message.state, message.last_error) == ("failed", "The webhook answered 500.")
    outbox.deliver_due(now=noon + timedelta(days=9))
    assert len(gateway.got) == outbox.MAX_ATTEMPTS


@pytest.mark.django_db
def test_a_gateway_that_is_away_is_no_crash(noon: datetime, settings: Settings) -> None:
    settings.SMS_SENDER = "accounts.senders.WebhookSender"
    settings.SMS_WEBHOOK_URL = "http://127.0.0.1:9/"  # the discard port: nobody listens
    write("a", noon)
    assert outbox.deliver_due(now=noon) == 0
    assert OutboxMessage.objects.get().state == "waiting"
    with pytest.raises(outbox.MessageNotSent):
        outbox.send_now(key="k", recipient="r", template="code", body="b")


@pytest.mark.django_db
def test_killed_between_sending_and_marking_means_sent_again_after_the_lease(
    noon: datetime, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a", noon)
    with monkeypatch.context() as patch:
        real = outbox._deliver

        def killed(*args: object) -> bool:
            with transaction.atomic():
                real(*args)  # type: ignore[arg-type]
                raise KeyboardInterrupt  # the mark is lost, the message is out

        patch.setattr(outbox, "_deliver", killed)
        with pytest.raises(KeyboardInterrupt):
            outbox.deliver_due(now=noon)
    assert outbox.deliver_due(now=noon + timedelta(minutes=14)) == 0
    assert outbox.deliver_due(now=noon + timedelta(minutes=15)) == 1
    assert [key for key, _ in gateway.got] == ["a", "a"]
    assert OutboxMessage.objects.get().state == "sent"


@pytest.mark.django_db
def test_a_message_whose_last_attempt_was_killed_is_closed(noon: datetime) -> None:
    write("a", noon)
    OutboxMessage.objects.update(attempts=outbox.MAX_ATTEMPTS)
    assert outbox.deliver_due(now=noon) == 0
    assert OutboxMessage.objects.get().state == "failed"


@pytest.mark.django_db(transaction=True)
def test_workers_at_once_send_each_message_once(noon: datetime, gateway: Gateway) -> None:
    for number in range(90):
        write(str(number), noon)
    barrier = Barrier(4)

    def work(_: int) -> int:
        try:
            barrier.wait(timeout=10)
            return outbox.deliver_due(now=noon)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 90
    assert len(gateway.got) == len({key for key, _ in gateway.got}) == 90


@pytest.mark.django_db(transaction=True)
def test_a_row_another_worker_holds_is_skipped_not_waited_for(
    noon: datetime, gateway: Gateway
) -> None:
    write("held", noon)
    write("free", noon)

    def work() -> int:
        try:
            return outbox.deliver_due(now=noon)
        finally:
            connection.close()

    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        OutboxMessage.objects.select_for_update().get(key="held")
        assert pool.submit(work).result(timeout=4) == 1
    assert [key for key, _ in gateway.got] == ["free"]


@pytest.mark.django_db
def test_the_console_sender_writes_the_log_and_the_task_delivers(
    noon: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    write("a", noon)
    logger = logging.getLogger("accounts.sms")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger="accounts.sms"):
            tasks.deliver_messages()
            outbox.send_now(key="k", recipient="+8613900000002", template="code", body="123456")
    finally:
        logger.removeHandler(caplog.handler)
    assert "[SMS] to +8613900000001: 用量 80%" in caplog.messages
    assert "[SMS] to +8613900000002: 123456" in caplog.messages
    assert OutboxMessage.objects.filter(state="sent").count() == 1
    assert OutboxMessage.objects.count() == 1  # the code was stored nowhere
