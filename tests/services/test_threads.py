"""Work in a thread that nobody has to wait for."""

import threading

import pytest

from services.threads import LastingThread

AT_MOST_S = 10.0


def ident() -> int:
    return threading.get_ident()


def test_one_thread_does_piece_after_piece_and_hands_on_what_they_raise() -> None:
    lasting = LastingThread("lasting")
    first = lasting.begin(ident).result(AT_MOST_S)
    with pytest.raises(ZeroDivisionError):
        lasting.begin(lambda: 1 / 0).result(AT_MOST_S)
    assert lasting.begin(ident).result(AT_MOST_S) == first != ident()
    lasting.end()


def test_what_hangs_keeps_its_thread_and_the_next_gets_another() -> None:
    lasting, let_go = LastingThread("lasting"), threading.Event()
    hanging = lasting.begin(lambda: let_go.wait(AT_MOST_S) and ident())
    other = lasting.begin(ident).result(AT_MOST_S)
    assert not hanging.done()
    let_go.set()
    assert hanging.result(AT_MOST_S) != other
    assert lasting.begin(ident).result(AT_MOST_S) == other
    lasting.end()


def test_an_ended_thread_is_gone_and_the_next_piece_begins_another() -> None:
    lasting = LastingThread("lasting")
    thread = lasting.begin(threading.current_thread).result(AT_MOST_S)
    lasting.end()
    thread.join(AT_MOST_S)
    assert not thread.is_alive()
    assert lasting.begin(threading.current_thread).result(AT_MOST_S) is not thread
    lasting.end()
