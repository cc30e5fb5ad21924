"""A version is fetched over HTTP with the token alone, on after a break, and never half of one and half of another."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import torch

from learner.publish import weight_server
from learner.publish.kept_buckets import BucketPool
from learner.publish.snapshot import Snapshot
from learner.publish.weight_server import WeightServer
from rollout.weights import fetch
from rollout.weights.fetch import fetch_bucket, fetch_manifest
from services.clock import Deadline
from services.errors import InputError, WeightSyncError
from services.weights.buckets import check_digest, digest
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Gap, WeightOffer

CPU = torch.device("cpu")
BOUND = Gap(1e-3, 1e-3, 1e-3)
SHAPES = [("a", torch.empty(700_000, device="meta")), ("b", torch.empty(7, device="meta"))]


class Bench:
    def __init__(self) -> None:
        self.server = WeightServer(None, 0, "127.0.0.1")
        self.pool = BucketPool(SHAPES, 1, CPU)

    def publish(self, version: int) -> None:
        kept, filling = self.pool.take()
        for place in kept.named.values():
            place.fill_(float(version))
        self.server.publish(Snapshot(version, kept, filling, (), copied=Mark(CPU), side=SideStream(CPU)), BOUND)

    def offer(self, **changes: str) -> WeightOffer:
        facts = {"url": self.server.source.url, "token": self.server.source.token, **changes}
        return WeightOffer(learner="l", policy_version=0, pg_generation=1, alone={}, **facts)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.server.close()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds, "the test")


def fetched(offer: WeightOffer) -> tuple[int, float]:
    """Fetch what is offered, check every digest, and return its version and the value that all of it has."""
    manifest = fetch_manifest(offer, soon())
    values = set()
    for position, bucket in enumerate(manifest.buckets):
        flat = torch.zeros(bucket.size_bytes, dtype=torch.uint8)
        fetch_bucket(offer, manifest.policy_version, position, flat, soon())
        check_digest(bucket, digest(flat), str(position))
        values.add(float(flat[:4].view(torch.float32)))
    assert len(values) == 1
    return manifest.policy_version, values.pop()


def test_the_newest_version_is_fetched_and_proved_by_its_digests(bench: Bench) -> None:
    bench.publish(3)
    assert fetched(bench.offer()) == (3, 3.0)


def test_nothing_is_served_without_the_token(bench: Bench) -> None:
    bench.publish(3)
    for token in ("", "guess", bench.server.source.token[:-1]):
        with pytest.raises(WeightSyncError, match="answered 401: show the token"):
            fetch_manifest(bench.offer(token=token), soon())
    with pytest.raises(WeightSyncError, match="answered 401"):
        fetch_bucket(bench.offer(token="guess"), 3, 0, torch.zeros(4, dtype=torch.uint8), soon())


def test_a_version_that_is_fetched_is_not_overwritten_and_a_third_set_is_all_that_this_takes(bench: Bench) -> None:
    bench.publish(0)
    manifest, content = fetch_manifest(bench.offer(), soon()), []
    for version in range(1, 20):  # each is ready to be overwritten by the next
        bench.publish(version)
    for position, bucket in enumerate(manifest.buckets):
        flat = torch.ones(bucket.size_bytes, dtype=torch.uint8)
        fetch_bucket(bench.offer(), 0, position, flat, soon())
        check_digest(bucket, digest(flat), str(position))
        content.append(flat)
    assert len(content) > 1
    assert len(bench.pool) <= 3


def test_after_an_idle_time_the_newest_is_served_and_the_older_one_has_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(0)
    assert fetch_manifest(bench.offer(), soon()).policy_version == 0
    for version in (1, 2, 3):
        bench.publish(version)
    assert fetch_manifest(bench.offer(), soon()).policy_version == 0  # others may be fetching it
    monkeypatch.setattr(weight_server, "IDLE_S", 0.0)
    assert fetched(bench.offer()) == (3, 3.0)
    with pytest.raises(WeightSyncError, match="answered 410: this version has gone"):
        fetch_bucket(bench.offer(), 0, 0, torch.zeros(4, dtype=torch.uint8), soon())


def test_what_cannot_be_asked_for_is_refused(bench: Bench) -> None:
    bench.publish(0)
    address = urlsplit(bench.server.source.url)

    def status(path: str, **headers: str) -> int:
        headers["Authorization"] = f"Bearer {bench.server.source.token}"
        with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    assert status("/weights/0/0", Range="bytes=4-") == 206
    assert status("/weights/0/0", Range="bytes=99999999-") == 416
    assert status("/weights/0/0", Range="bytes=1-2") == 416
    assert status("/weights/0/99") == 410
    assert status("/elsewhere") == 404


def test_a_port_that_is_taken_is_an_error_that_says_which(bench: Bench) -> None:
    port = urlsplit(bench.server.source.url).port
    assert port is not None
    with pytest.raises(InputError, match=r"cannot serve weights on 127\.0\.0\.1, port \d+: .*weights\.serve_port"):
        WeightServer(None, port, "127.0.0.1")


def test_a_fetch_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE_S", 0.01)
    content = torch.arange(1000, dtype=torch.int64).view(torch.uint8)
    asked: list[str] = []

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(content.numel() - first))
            self.end_headers()
            self.wfile.write(content[first : first + 3000].numpy().tobytes())  # and no more of it

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        offer = WeightOffer(learner="l", url=url, token="t", policy_version=0, pg_generation=1, alone={})
        into = torch.zeros(content.numel(), dtype=torch.uint8)
        fetch_bucket(offer, 0, 0, into, soon())
        server.shutdown()
    assert torch.equal(into, content)
    assert asked == ["bytes=0-", "bytes=3000-", "bytes=6000-"]


def test_a_server_that_stays_away_ends_at_the_deadline(bench: Bench) -> None:
    offer = bench.offer()
    bench.server.close()
    with pytest.raises(WeightSyncError, match=r"bucket 1 of version 0 did not come .* 0 of 8 bytes: ConnectionRefused"):
        fetch_bucket(offer, 0, 0, torch.zeros(8, dtype=torch.uint8), soon(1.0))
