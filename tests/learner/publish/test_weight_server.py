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
from learner.publish.changes import Base
from learner.publish.kept_buckets import BucketPool
from learner.publish.snapshot import Snapshot
from learner.publish.weight_server import WeightServer
from rollout.weights import fetch
from rollout.weights.fetch import Link, fetch_bucket, fetch_delta, fetch_manifest
from services.clock import Deadline
from services.config.weights import HttpChannel
from services.errors import InputError, WeightSyncError
from services.weights.buckets import check_digest, digest
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Gap, WeightSource

CPU = torch.device("cpu")
BOUND = Gap(1e-3, 1e-3, 1e-3)
SHAPES = [("a", torch.empty(700_000, device="meta")), ("b", torch.empty(7, device="meta"))]


class Bench:
    def __init__(self) -> None:
        self.server = WeightServer(None, 0, "127.0.0.1")
        self.pool = BucketPool(SHAPES, 1, CPU)
        self._links: list[Link] = []

    def publish(self, version: int) -> None:
        kept, filling = self.pool.take()
        for place in kept.named.values():
            place.fill_(float(version))
        self.server.publish(Snapshot(version, kept, filling, (), copied=Mark(CPU), side=SideStream(CPU)), BOUND)

    def source(self, token: str | None = None) -> WeightSource:
        return WeightSource(self.server.source.url, self.server.source.token if token is None else token)

    def link(self, token: str | None = None) -> Link:
        self._links.append(Link(self.source(token)))
        return self._links[-1]

    def close(self) -> None:
        for link in self._links:
            link.drop()
        self.server.close()

    def change(self, first: int, second: int) -> Snapshot:
        """Publish two versions that differ in the second tensor alone, which the second was to go out by; the second."""
        snapshots = []
        base = Base(HttpChannel(delta=True), lambda: False)
        for version in (first, second):
            kept, filling = self.pool.take()
            kept.named["a"].fill_(1.0)
            kept.named["a"][: 10 * version] = 2.0
            snapshots.append(Snapshot(version, kept, filling, (), copied=Mark(CPU), side=SideStream(CPU)))
            assert snapshots[-1].hold()
            self.server.publish(snapshots[-1], BOUND)
            base.changes(snapshots[-1], ["a"], lambda _: {"a"})
            base.is_proved(snapshots[-1])
        return snapshots[1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds, "the test")


def fetched(link: Link) -> tuple[int, float]:
    """Fetch what is offered, check every digest, and return its version and the value that all of it has."""
    manifest = fetch_manifest(link.source, soon())
    values = set()
    for position, bucket in enumerate(manifest.buckets):
        flat = torch.zeros(bucket.size_bytes, dtype=torch.uint8)
        fetch_bucket(link, manifest.policy_version, position, flat, soon())
        check_digest(bucket, digest(flat), str(position))
        values.add(float(flat[:4].view(torch.float32)))
    assert len(values) == 1
    return manifest.policy_version, values.pop()


def test_the_newest_version_is_fetched_and_proved_by_its_digests(bench: Bench) -> None:
    bench.publish(3)
    assert fetched(bench.link()) == (3, 3.0)


def test_nothing_is_served_without_the_token(bench: Bench) -> None:
    bench.publish(3)
    for token in ("", "guess", bench.server.source.token[:-1]):
        with pytest.raises(WeightSyncError, match="answered 401: show the token"):
            fetch_manifest(bench.source(token), soon())
    with pytest.raises(WeightSyncError, match="answered 401"):
        fetch_bucket(bench.link("guess"), 3, 0, torch.zeros(4, dtype=torch.uint8), soon())


def test_a_version_that_is_fetched_is_not_overwritten_and_a_third_set_is_all_that_this_takes(bench: Bench) -> None:
    bench.publish(0)
    manifest, content = fetch_manifest(bench.source(), soon()), []
    for version in range(1, 20):  # each is ready to be overwritten by the next
        bench.publish(version)
    for position, bucket in enumerate(manifest.buckets):
        flat = torch.ones(bucket.size_bytes, dtype=torch.uint8)
        fetch_bucket(bench.link(), 0, position, flat, soon())
        check_digest(bucket, digest(flat), str(position))
        content.append(flat)
    assert len(content) > 1
    assert len(bench.pool) <= 3


def test_after_an_idle_time_the_newest_is_served_and_the_older_one_has_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(0)
    assert fetch_manifest(bench.source(), soon()).policy_version == 0
    for version in (1, 2, 3):
        bench.publish(version)
    assert fetch_manifest(bench.source(), soon()).policy_version == 0  # others may be fetching it
    monkeypatch.setattr(weight_server, "IDLE_S", 0.0)
    assert fetched(bench.link()) == (3, 3.0)
    with pytest.raises(WeightSyncError, match="answered 410: this version has gone"):
        fetch_bucket(bench.link(), 0, 0, torch.zeros(4, dtype=torch.uint8), soon())


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


def test_what_changed_is_fetched_by_the_digest_of_its_base_and_goes_on_where_it_broke_off(bench: Bench) -> None:
    snapshot = bench.change(1, 2)
    manifest = fetch_manifest(bench.source(), soon())
    assert manifest.policy_version == 2
    change = manifest.deltas[0]
    assert change is not None
    into = torch.zeros(change.size_bytes, dtype=torch.uint8)
    assert fetch_delta(bench.link(), 2, 0, change.base, into, soon())
    assert digest(into) == change.digest
    address = urlsplit(bench.server.source.url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)) as connection:
        headers = {"Authorization": f"Bearer {bench.server.source.token}", "Range": "bytes=40-"}
        connection.request("GET", f"/weights/2/0/from/{change.base}", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, into[40:].numpy().tobytes())
    snapshot.release(arrived=True)


def test_what_changed_since_another_version_or_in_another_is_not_there_and_needs_the_token(bench: Bench) -> None:
    bench.change(1, 2)
    into = torch.zeros(4, dtype=torch.uint8)
    change = fetch_manifest(bench.source(), soon()).deltas[0]
    assert change is not None
    assert not fetch_delta(bench.link(), 2, 0, "0" * 32, into, soon())
    assert not fetch_delta(bench.link(), 1, 0, change.base, into, soon())
    assert not fetch_delta(bench.link(), 2, 1, change.base, into, soon())  # a few values, which go out whole
    assert not fetch_delta(bench.link(), 7, 99, change.base, into, soon())
    with pytest.raises(WeightSyncError, match="answered 401"):
        fetch_delta(bench.link("guess"), 2, 0, change.base, into, soon())


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
        into = torch.zeros(content.numel(), dtype=torch.uint8)
        with Link(WeightSource(url, "t")) as link:
            fetch_bucket(link, 0, 0, into, soon())
        server.shutdown()
    assert torch.equal(into, content)
    assert asked == ["bytes=0-", "bytes=3000-", "bytes=6000-"]


def test_a_server_that_stays_away_ends_at_the_deadline(bench: Bench) -> None:
    link = bench.link()
    bench.server.close()
    with pytest.raises(WeightSyncError, match=r"bucket 1 of version 0 did not come .* 0 of 8 bytes: ConnectionRefused"):
        fetch_bucket(link, 0, 0, torch.zeros(8, dtype=torch.uint8), soon(1.0))
