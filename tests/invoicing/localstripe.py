"""A Stripe of our own: localstripe as its own process, spoken to over HTTP only."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LOCALSTRIPE", ROOT / ".venv-localstripe" / "bin" / "localstripe"))
START_SECONDS = 30
CARD = "4242424242424242"
CARD_THAT_ASKS = "4000002500003155"  # the holder must say yes first
CARD_THAT_IS_DECLINED = "4000000000000341"  # attached, then declined when it is charged


@dataclass(frozen=True)
class LocalStripe:
    """Where it listens, and what a customer does there."""

    base: str
    key: str = "sk_test_12345"

    def call(self, path: str, **fields: Any) -> dict[str, Any]:
        """POST as Stripe's own forms do."""
        answer = httpx.post(f"{self.base}{path}", data=fields, auth=(self.key, ""))
        answer.raise_for_status()
        body = answer.json() if answer.content else {}
        assert isinstance(body, dict)
        return body

    def send_webhooks_to(self, url: str, secret: str) -> None:
        httpx.post(
            f"{self.base}/_config/webhooks/ours", json={"url": url, "secret": secret}
        ).raise_for_status()

    def card(self, number: str = CARD) -> str:
        """A payment method, as the card form makes it."""
        made = self.call(
            "/v1/payment_methods",
            type="card",
            **{
                "card[number]": number,
                "card[exp_month]": "12",
                "card[exp_year]": "2035",
                "card[cvc]": "123",
            },
        )
        return str(made["id"])

    def pay(self, intent_id: str) -> None:
        """The customer pays an intent in the card form."""
        self.call(f"/v1/payment_intents/{intent_id}", payment_method=self.card())
        self.call(f"/v1/payment_intents/{intent_id}/confirm")

    def say_yes(self, intent_id: str, client_secret: str) -> None:
        """The card holder approves the payment at the bank."""
        self.call(
            f"/v1/payment_intents/{intent_id}/_authenticate",
            client_secret=client_secret,
            success="true",
        )


@contextmanager
def running(log: Path) -> Iterator[LocalStripe]:
    """localstripe on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = PROGRAM.with_name("python")
    command = [str(python), "-m", "localstripe", "--from-scratch", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603
        try:
            _wait_for(port, process)
            yield LocalStripe(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"localstripe ended with {process.returncode}; see its log")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("localstripe does not answer")
