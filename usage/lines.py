"""Messages between the processes of one machine: one asks over a Unix socket, the other answers.

A message is its length (4 bytes, big-endian) and as many bytes. The folder of the sockets is open
to nobody else, so who asks is one of us. Every wait has an end; a line on which something went
wrong is closed, and not used again.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from struct import Struct
from threading import BoundedSemaphore
from typing import Any

SEND_SECONDS = 5  # to connect, and to hand a message over
ANSWER_SECONDS = 90  # more than a transaction, tried again, and the wait for it may take
IDLE_SECONDS = 60
MOST_ANSWERING = 32  # messages in memory at once; who has to wait is not read
MOST_BYTES = 2**26  # of a message: a report of the largest size and its positions are far less

_LENGTH = Struct("!I")

Answering = Callable[[bytes], bytes]


class LineBroken(Exception):
    """Nobody is there, or the answer did not come; whether the message was read is not known."""


class Line:
    """A connection that carries one message and its answer at a time."""

    def __init__(self, path: Path) -> None:
        """Raises LineBroken when nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SEND_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise LineBroken(f"{path.name}: {error}") from None
        self._file = self._socket.makefile("rb")
        self.kept_until = 0.0  # float: of the clock that only goes on; only once it was answered

    def ask(self, message: bytes) -> None:
        """Send a message; raises LineBroken."""
        self.kept_until = 0.0  # float: as above
        try:
            self._socket.settimeout(SEND_SECONDS)
            self._socket.sendall(_LENGTH.pack(len(message)) + message)
        except OSError as error:
            raise LineBroken(str(error)) from None

    def answer(self) -> bytes:
        """The answer to what was asked; raises LineBroken."""
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            size = _size(self._file)
            if size is None:
                raise ConnectionError("the other side hung up")
            answer = _content(self._file, size)
        except OSError as error:
            raise LineBroken(str(error)) from None
        self.kept_until = time.monotonic() + IDLE_SECONDS / 2
        return answer

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class Lines:
    """Lines to one other process, kept for the next message as long as it keeps them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[Line] = []

    @contextmanager
    def one(self) -> Iterator[Line]:
        """A line of one's own for a while; it is closed unless all it was asked was answered.
        Raises LineBroken."""
        line = self._kept() or Line(self._path)
        try:
            yield line
        finally:
            if line.kept_until:
                self._idle.append(line)
            else:
                line.close()

    def close(self) -> None:
        """Hang up those that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> Line | None:
        with suppress(IndexError):
            while line := self._idle.pop():
                if time.monotonic() < line.kept_until:
                    return line
                line.close()
        return None


@contextmanager
def listening(path: Path, answer: Answering) -> Iterator[None]:
    """Answer messages that come to a path, those of a line by one thread."""
    path.unlink(missing_ok=True)
    turns = BoundedSemaphore(MOST_ANSWERING)
    with _Server(str(path), partial(_Answerer, answer, turns)) as server:
        threading.Thread(target=server.serve_forever, name=path.name, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Answerer(StreamRequestHandler):
    timeout = IDLE_SECONDS

    def __init__(self, answer: Answering, turns: BoundedSemaphore, *about: Any) -> None:
        self._answer = answer
        self._turns = turns
        super().__init__(*about)

    def handle(self) -> None:
        # Silent for too long, or gone: whoever asks next opens a new line.
        with suppress(OSError):
            while (size := _size(self.rfile)) is not None:
                told = self._in_turn(size)
                self.connection.sendall(_LENGTH.pack(len(told)) + told)

    def _in_turn(self, size: int) -> bytes:
        if not self._turns.acquire(timeout=ANSWER_SECONDS):
            raise TimeoutError
        try:
            return self._answer(_content(self.rfile, size))
        finally:
            self._turns.release()


def _size(file: BufferedIOBase) -> int | None:
    """The size of the next message, None at the end; raises OSError for what is none."""
    head = file.read(_LENGTH.size)
    if not head:
        return None
    [size] = _LENGTH.unpack(head) if len(head) == _LENGTH.size else [MOST_BYTES + 1]
    if size > MOST_BYTES:
        raise ConnectionError("a message was cut off or is too long")
    return int(size)


def _content(file: BufferedIOBase, size: int) -> bytes:
    message = file.read(size)
    if len(message) < size:
        raise ConnectionError("a message was cut off")
    return message
