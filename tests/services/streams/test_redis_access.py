"""A user name and TLS, against a real server: the bundled one has no TLS of its own, so a proxy in the test ends it."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services import entry
from services.command.redis_server import RedisServer
from services.config import RunConfig
from services.config.load import load
from services.errors import InputError
from services.streams.redis_connection import CommandRefused, RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def config_with(*overrides: str) -> RunConfig:
    return load(ROOT / "examples/addition/addition.toml", list(overrides))


def moved(connection: RedisConnection, run: str, size: int) -> bool:
    """Whether a group goes from one stream to the next."""
    source, target = (RedisStream(connection, run, name, "a", 60.0) for name in ("prompts", "trajectories"))
    RedisIssueLog(connection, source).issue(0, b"x")
    [claim] = source.claim(1, 0.0)
    return source.hand_over(claim, target, b"x" * size)


def test_a_user_with_rights_to_our_keys_alone_can_do_all_of_it(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = RedisConnection(server.url)
    rules = ("on", ">pass:w/rd", "~ratchet:*", "+@all", "-@dangerous", "+info")
    owner.execute("ACL", "SETUSER", "trainer", *rules)
    (tmp_path / "password").write_text("pass:w/rd\n")
    path = unquote(server.url.partition("@")[2])
    monkeypatch.setenv(entry.REDIS_URL_VARIABLE, f"unix://trainer@{path}")
    monkeypatch.setenv(entry.REDIS_PASSWORD_FILE_VARIABLE, str(tmp_path / "password"))
    connection = entry.redis_connection(config_with(), deadline_s=5.0)
    assert moved(connection, "acl", 10)
    assert moved(connection, "acl-large", 100_000)
    with pytest.raises(CommandRefused, match="keys that begin with ratchet:"):
        connection.execute("SET", "other", "x")
    connection.close()
    owner.close()


class Certificates:
    """An authority, and a certificate of it for 127.0.0.1, as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.key = folder / "key.pem"
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        now = datetime.datetime.now(datetime.UTC)

        def signed(subject: x509.Name, of: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
            builder = x509.CertificateBuilder(
                issuer_name=issuer,
                subject_name=subject,
                public_key=of.public_key(),
                serial_number=x509.random_serial_number(),
                not_valid_before=now - datetime.timedelta(days=1),
                not_valid_after=now + datetime.timedelta(days=1),
            )
            made = builder.add_extension(extension, critical=False).sign(authority_key, hashes.SHA256())
            return made.public_bytes(serialization.Encoding.PEM)

        self.authority.write_bytes(signed(issuer, authority_key, x509.BasicConstraints(ca=True, path_length=None)))
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        self.certificate.write_bytes(signed(x509.Name([]), key, address))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


class TlsProxy:
    """Ends TLS in front of a server's socket."""

    def __init__(self, path: str, certificates: Certificates) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._path = path
        self._context = context
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX) as server,
            self._context.wrap_socket(client, server_side=True) as secure,
        ):
            server.connect(self._path)
            while data := secure.recv(65536):  # this client sends a command and then waits for its answer
                server.sendall(data)
                server.settimeout(0.2)
                with suppress(TimeoutError):
                    while answer := server.recv(65536):
                        secure.sendall(answer)

    def close(self) -> None:
        self._listener.close()


def test_a_server_behind_tls_is_checked_against_the_authority_of_the_settings(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates, strangers = Certificates(tmp_path / "ours"), Certificates(tmp_path / "strangers")
    monkeypatch.delenv(entry.REDIS_URL_VARIABLE, raising=False)
    password, _, path = server.url.removeprefix("unix://:").partition("@")
    proxy = TlsProxy(unquote(path), certificates)
    url = f"redis.url=rediss://:{password}@127.0.0.1:{proxy.port}/0"
    connection = entry.redis_connection(config_with(url, f"redis.ca_file={certificates.authority}"), deadline_s=10.0)
    assert connection.execute("PING") == b"PONG"
    connection.close()
    with pytest.raises(
        InputError, match=r"certificate of Redis at 127\.0\.0\.1.* is not accepted .*set redis\.ca_file"
    ):
        entry.redis_connection(config_with(url, f"redis.ca_file={strangers.authority}"), deadline_s=10.0)
    with pytest.raises(InputError, match=r"redis\.ca_file = .*nowhere.pem: there is no such file"):
        entry.redis_connection(config_with(url, f"redis.ca_file={tmp_path / 'nowhere.pem'}"), deadline_s=10.0)
    proxy.close()
