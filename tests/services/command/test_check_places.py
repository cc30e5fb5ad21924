"""Addresses and folders that a run cannot have are refused by the setting that names them, before anything is started."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.command import check_places
from services.command.check_places import check_folder, check_ports, check_redis, check_verifier
from services.command.redis_server import RedisServer
from services.entry import REDIS_URL_VARIABLE
from services.errors import InputError
from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection
from tests.services.command.running import run


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_file_where_a_folder_has_to_be(tmp_path: Path, above: int) -> None:
    config = run(tmp_path)
    file = [config.folder, config.folder.parent, config.folder / "logs"][above]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(InputError, match=rf"runs_folder = .*{file.name} is a file"):
        check_folder(config)


def test_a_folder_where_a_file_has_to_be(tmp_path: Path) -> None:
    config = run(tmp_path)
    RunFolder(config.folder).steps.mkdir(parents=True)
    with pytest.raises(InputError, match=r"steps\.jsonl is a folder, where the run has a file"):
        check_folder(config)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"runs_folder = /proc/.* cannot be written \(No such file or directory\); choose another runs_folder",
    ):
        check_folder(run(tmp_path, "runs_folder=/proc/self/fd"))


def test_a_folder_that_is_not_there_yet_is_made_later(tmp_path: Path) -> None:
    check_folder(run(tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("learner.metrics_host=192.0.2.1", r'learner\.metrics_host = "192\.0\.2\.1" is not an address of this machine'),
        ("rollout.metrics_host=no.such.host.invalid", r"rollout\.metrics_host = .* is not the address of a machine"),
        ("verifier.host=a..b", r'verifier\.host = "a\.\.b" is not the address of a machine'),
    ],
)
def test_an_address_that_nothing_can_listen_on(tmp_path: Path, override: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_ports(run(tmp_path, override))


def test_a_port_that_is_taken_or_given_twice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"verifier\.port = {port} on 127\.0\.0\.1 cannot be used: Address already in"
        ):
            check_ports(run(tmp_path, f"verifier.port={port}"))
    with pytest.raises(InputError, match=rf"learner\.metrics_port = {port} is also verifier\.port"):
        check_ports(run(tmp_path, f"verifier.port={port}", f"learner.metrics_port={port}"))


def test_the_usual_addresses_are_fine(tmp_path: Path) -> None:
    check_ports(run(tmp_path, "verifier.host=0.0.0.0", "learner.metrics_host=localhost"))


@pytest.fixture
def http_server() -> Iterator[int]:
    """Answers as a web server does what it cannot read."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def test_a_web_server_is_not_a_redis_server(tmp_path: Path, http_server: int) -> None:
    with pytest.raises(InputError, match=rf"what listens at 127\.0\.0\.1:{http_server}/0 is not a Redis server"):
        check_redis(run(tmp_path, f"redis.url=redis://127.0.0.1:{http_server}/0"))


def test_a_database_that_the_server_does_not_have(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(InputError, match=r"refused the connection: .*DB index is out of range.*number of the database"):
        check_redis(run(tmp_path, f"redis.url={redis_url}?db=99"))


def test_a_server_that_lets_nobody_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_places, "ANSWER_S", 0.3)
    with RedisServer(tmp_path / "redis") as server:
        server.start()
        connection = RedisConnection(server.url)
        connection.execute("REPLICAOF", "127.0.0.1", "1")
        connection.close()
        with pytest.raises(InputError, match=r"redis\.url: Redis at .*(READONLY|read only|MASTERDOWN)"):
            check_redis(run(tmp_path, f"redis.url={server.url}"))


def test_a_server_that_is_not_there_is_named_by_the_variable_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_places, "ANSWER_S", 0.2)
    monkeypatch.setenv(REDIS_URL_VARIABLE, "redis://127.0.0.1:1/0")
    with pytest.raises(
        InputError, match=r"the environment variable RATCHET_REDIS_URL: Redis at 127\.0\.0\.1:1/0 gave no"
    ):
        check_redis(run(tmp_path))


def test_a_server_that_is_there_passes(tmp_path: Path, redis_url: str) -> None:
    check_redis(run(tmp_path, f"redis.url={redis_url}"))
    check_redis(run(tmp_path))  # one of its own


ENDPOINT = 'verifier.endpoints={judge = {url = "http://127.0.0.1:1/v1", model = "m", api_key_env = "NOT_SET_ANYWHERE"}}'


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "verifier.limits={maths = {deadline_s = 3.0}}",
            r"verifier\.limits\.maths: there is no such grader; the known ones",
        ),
        (ENDPOINT, r'verifier\.endpoints\.judge\.api_key_env = "NOT_SET_ANYWHERE": no such variable'),
        ("verifier.ca_certificate=nowhere.pem", r"verifier\.ca_certificate = .*nowhere\.pem: no such file"),
    ],
)
def test_what_no_verifier_would_take(tmp_path: Path, override: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_verifier(run(tmp_path, override))


def test_a_service_that_does_not_answer_now_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_SET_ANYWHERE", "token")
    (warning,) = check_verifier(run(tmp_path, ENDPOINT))
    assert warning.startswith("verifier.endpoints.judge.url = http://127.0.0.1:1/v1 does not answer now: ")
