"""The demo's HTTP side: sends as a node does, and sends again after a lost answer, for a while."""

import time
from typing import Any

import requests

WAIT_SECONDS = 0.5
PATIENCE_SECONDS = 120


class NoAnswer(Exception):
    """The server did not answer in time; the message says what was asked."""


class Client:
    """One caller of the API with its key."""

    def __init__(self, base: str, key: str) -> None:
        self._base = base
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def once(self, method: str, path: str, **options: Any) -> requests.Response | None:
        """One attempt; None when no answer came or the server asks to wait."""
        try:
            response = self._session.request(
                method, f"{self._base}/api/v1{path}", timeout=30, **options
            )
        except (requests.ConnectionError, requests.Timeout):
            return None
        return None if response.status_code >= 500 else response

    def get(self, path: str) -> Any:
        """A read, tried until it is answered; raises NoAnswer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            response = self.once("GET", path)
            if response is not None:
                response.raise_for_status()
                return response.json()
            time.sleep(WAIT_SECONDS)
        raise NoAnswer(f"GET {path} was not answered in {PATIENCE_SECONDS} s")

    def post(self, path: str, body: Any, headers: dict[str, str]) -> requests.Response:
        """A write that may be sent twice, tried until it is answered; raises NoAnswer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            response = self.once("POST", path, json=body, headers=headers)
            if response is not None:
                return response
            time.sleep(WAIT_SECONDS)
        raise NoAnswer(f"POST {path} was not answered in {PATIENCE_SECONDS} s")


class NodeClient(Client):
    """A node that knows, after a lost answer, whether its batch was stored: its newest batch tells.

    One thread reports for a node, so no other batch can come between.
    """

    def __init__(self, base: str, key: str) -> None:
        super().__init__(base, key)
        self.last_batch: int | None = self.get("/nodes/me")["last_batch"]

    def report(self, events: list[dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """Report a batch until it is answered; (answer, whether a lost attempt had stored it).

        Raises NoAnswer when the server stays away.
        """
        stored = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            response = self.once("POST", "/usage/events", json=events)
            if response is not None:
                response.raise_for_status()
                answer: dict[str, Any] = response.json()
                self.last_batch = answer["batch"]
                return answer, stored
            time.sleep(WAIT_SECONDS)
            newest = self.get("/nodes/me")["last_batch"]
            if newest != self.last_batch:
                self.last_batch, stored = newest, True
        raise NoAnswer(f"a batch of {len(events)} events was not answered in {PATIENCE_SECONDS} s")
