"""What the nodes sent and what they were told: the evidence that the database is held against."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests

MT_PER_TOKEN = {"telechat": 1000, "telechat-x10": 10_000}  # by the catalogue


@dataclass(frozen=True)
class SentEvent:
    """An event as reported, and what it must count, computed here and not by the engine."""

    id: str
    mt: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Told:
    """A request that must always be answered alike, and the first answer to it."""

    key: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    status: int
    answer: dict[str, Any]


@dataclass
class Journal:
    """Filled by many threads; read when they are done."""

    sent: dict[str, SentEvent] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # seen by clients, by kind
    surprises: list[str] = field(default_factory=list)  # answers that nobody should get
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, events: list[SentEvent]) -> None:
        """Before they leave: from now on each is there or not, and nobody knows."""
        with self._lock:
            self.sent |= {one.id: one for one in events}

    def note_acknowledged(self, events: list[SentEvent], answer: dict[str, Any]) -> None:
        """The server says that it has counted all of these, now or before."""
        with self._lock:
            if answer["accepted"] + answer["duplicate"] != len(events) or answer.get("errors"):
                self.surprises.append(f"{len(events)} events were answered {answer}")
            else:
                self.acknowledged |= {one.id for one in events}

    def note_told(self, told: Told) -> None:
        with self._lock:
            self.told.append(told)

    def count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self.counts[name] += by

    def note_error(self, kind: str) -> None:
        with self._lock:
            self.errors[kind] += 1

    def note_surprise(self, response: requests.Response, path: str) -> None:
        """An answer that is neither yes nor `come again`."""
        with self._lock:
            self.surprises.append(f"{path} was answered {response.status_code}: {response.text}")

    def progress(self) -> int:
        """How many requests were answered so far."""
        with self._lock:
            return self.counts["answered"]
