"""Messages between processes: whole or not at all, and no wait without an end."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from usage import lines
from usage.lines import LineBroken, Lines, listening


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "0.sock"


@pytest.fixture
def there(path: Path) -> Iterator[Lines]:
    with closing(Lines(path)) as lines:
        yield lines


def ask(there: Lines, message: bytes) -> bytes:
    with there.one() as line:
        line.ask(message)
        return line.answer()


def test_many_ask_at_once_and_each_gets_its_own_answer(path: Path, there: Lines) -> None:
    answers: dict[int, bytes] = {}
    with listening(path, lambda message: message[::-1]):

        def several(number: int) -> None:
            for turn in range(20):
                message = struct.pack("!II", number, turn) * 50_000
                assert ask(there, message) == message[::-1]
            answers[number] = ask(there, b"")

        threads = [threading.Thread(target=several, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert answers == dict.fromkeys(range(8), b"")


def test_lines_are_used_again(path: Path, there: Lines) -> None:
    threads = set[int]()

    def answer(message: bytes) -> bytes:
        threads.add(threading.get_ident())
        return message

    with listening(path, answer):
        assert [ask(there, b"a"), ask(there, b"b"), ask(there, b"c")] == [b"a", b"b", b"c"]
    assert len(threads) == 1


def test_a_line_whose_answer_was_not_heard_is_not_used_again(path: Path, there: Lines) -> None:
    with listening(path, lambda message: message):
        with pytest.raises(ZeroDivisionError), there.one() as line:
            line.ask(b"a")
            raise ZeroDivisionError
        with there.one() as line:
            line.ask(b"b")  # and whoever has it now leaves without listening
        assert ask(there, b"c") == b"c"


def test_nobody_is_there(path: Path, there: Lines) -> None:
    with pytest.raises(LineBroken), there.one():
        pass
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # one who died left it behind
    with pytest.raises(LineBroken), there.one():
        pass
    with listening(path, lambda message: message):
        assert ask(there, b"a") == b"a"


def test_one_who_hangs_up_or_cuts_a_message_off_is_told(path: Path, there: Lines) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        for told in (b"", b"\0\0", b"\0\0\0\5abc", b"\xff\xff\xff\xffabc"):
            with pytest.raises(LineBroken), there.one() as line:
                line.ask(b"a")
                other, _ = server.accept()
                assert other.recv(100) == b"\0\0\0\1a"
                other.sendall(told)
                other.close()
                line.answer()


def test_one_who_does_not_answer_or_listen_is_given_up(
    path: Path, there: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(lines, "SEND_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(LineBroken, match="timed out"), there.one() as line:
            line.ask(b"a")
            line.answer()
        with pytest.raises(LineBroken, match="timed out"), there.one() as line:
            line.ask(bytes(2**22))


def test_a_kept_line_that_the_other_side_closed_meanwhile_is_told(path: Path, there: Lines) -> None:
    with listening(path, lambda message: message):
        assert ask(there, b"a") == b"a"
        [kept] = there._idle
        kept._socket.shutdown(socket.SHUT_RDWR)  # as after a kill of the other process
        with pytest.raises(LineBroken):
            ask(there, b"b")
        assert ask(there, b"c") == b"c"


def test_lines_idle_for_long_are_closed_by_either_side(
    path: Path, there: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(lines._Answerer, "timeout", 0.2)
    with listening(path, lambda message: message):
        ask(there, b"a")
        [kept] = there._idle
        time.sleep(0.3)
        assert kept._socket.recv(1) == b""
        assert ask(there, b"b") == b"b"
        assert kept._socket.fileno() < 0


def test_no_more_are_read_at_once_than_there_is_room_for(
    path: Path, there: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_ANSWERING", 2)
    monkeypatch.setattr(lines, "SEND_SECONDS", 0.5)
    here, most = set[int](), []
    go_on = threading.Event()

    def answer(message: bytes) -> bytes:
        here.add(threading.get_ident())
        most.append(len(here))
        go_on.wait(timeout=20)
        here.discard(threading.get_ident())
        return message

    broken: list[str] = []

    def one() -> None:
        try:
            ask(there, bytes(2**21))  # more than the kernel keeps for one who does not read
        except LineBroken as error:
            broken.append(str(error))

    with listening(path, answer):
        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _look in range(200):
            if len(broken) == 2:
                break
            time.sleep(0.05)
        go_on.set()
        for thread in threads:
            thread.join(timeout=20)
    assert max(most) == 2
    assert broken == ["timed out"] * 2


def test_what_the_answerer_does_not_survive_breaks_the_line(
    path: Path, there: Lines, capfd: Any
) -> None:
    def fail(message: bytes) -> bytes:
        raise ZeroDivisionError

    with listening(path, fail), pytest.raises(LineBroken):
        ask(there, b"a")
    assert "ZeroDivisionError" in capfd.readouterr().err
