"""Serves the newest version to replicas that fetch it by themselves: its manifest, and its buckets by ranges of bytes.

    GET /weights                            the manifest of the version to fetch: a WeightManifest record
    GET /weights/VERSION/BUCKET             the bytes of a bucket, or of a range of it (Range: bytes=FIRST-); 410 where a newer
                                            version has taken their place
    GET /weights/VERSION/BUCKET/from/BASE   what changed in it since the bucket with this digest (weights.delta), or a range of
                                            that; 404 where it is not there: fetch the bucket
    Authorization: Bearer TOKEN             with each request; the token is in the learner's offer on Redis

A version that is fetched stays in memory until nobody has asked for a piece of it for IDLE_S. Whoever asks for a manifest
meanwhile gets that version, too, so that there is one at most beside those that the publisher has. Where versions lie on a GPU,
a copy in host memory is served.
"""

import hmac
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from torch import Tensor

from learner.metrics import DELTA_FALLBACKS, WEIGHT_BYTES
from learner.publish.snapshot import Changes, Snapshot
from services.clock import now_s
from services.errors import InputError
from services.loopback import is_loopback
from services.weights.side_stream import SideStream
from services.wire.codec import encode
from services.wire.weights import Delta, Gap, WeightManifest, WeightSource

log = logging.getLogger("ratchet.learner")

IDLE_S = 2.0
LONGEST_SILENCE_S = 10.0
"""Seconds after which a request whose other end takes nothing is closed."""
CHUNK_BYTES = 1 << 20


@dataclass
class _Fetched:
    """The version that is fetched now."""

    manifest: WeightManifest
    flats: tuple[Tensor, ...]
    """In host memory."""
    changes: Changes | None
    let_go: Callable[[], None]
    used_s: float
    readers: int = 0


class WeightServer:
    """Serves on threads of its own until it is closed."""

    def __init__(self, listen_host: str | None, port: int, host: str) -> None:
        """listen_host: weights.serve_host. port: 0 takes any free one. host: where replicas reach this host (weights.host).
        Raises InputError when the address cannot be bound."""
        token = secrets.token_urlsafe(24)
        address = listen_host or ("127.0.0.1" if is_loopback(host) else "")
        try:
            self._server = ThreadingHTTPServer((address, port), _page(self, token))
        except OSError as fault:
            raise InputError(
                f"cannot serve weights on {address or 'every interface'}, port {port}: {fault.strerror}; choose another "
                "weights.serve_port, or 0 for any free one, and a weights.serve_host that is an address of this host"
            ) from fault
        self._server.daemon_threads = True
        self.source = WeightSource(f"http://{host}:{self._server.server_address[1]}", token)
        """What replicas have to know."""
        self._lock = threading.Lock()
        self._published: tuple[tuple[Snapshot, Gap], ...] = ()  # the last two
        self._fetched: _Fetched | None = None
        threading.Thread(target=self._server.serve_forever, name="weight-server", daemon=True).start()

    def publish(self, snapshot: Snapshot, bound: Gap) -> None:
        """Serve this version from now on. bound: see WeightManifest."""
        self._published = (*self._published[-1:], (snapshot, bound))
        if self._lock.acquire(blocking=False):  # who fetches may be waiting for digests; training does not
            try:
                self._forget_idle()
            finally:
                self._lock.release()

    def manifest(self) -> WeightManifest | None:
        """The manifest of the version to fetch now; None while there is none."""
        with self._lock:
            self._forget_idle()
            if self._fetched is None and self._published:
                self._fetched = _begin(*self._published[-1])
            return self._fetched.manifest if self._fetched else None

    @contextmanager
    def bucket(self, policy_version: int, position: int) -> Iterator[Tensor | None]:
        """The bytes of a bucket in host memory, as long as the context lasts; None where there are none any more."""
        fetched: _Fetched | None = None
        with self._lock:
            if self._fetched is not None and self._fetched.manifest.policy_version == policy_version:
                fetched = self._fetched
            else:
                for snapshot, bound in self._published:
                    if snapshot.policy_version == policy_version:
                        fetched = _begin(snapshot, bound)
            if fetched is not None:
                fetched.readers += 1
        if fetched is None:
            yield None
            return
        try:
            yield fetched.flats[position] if position < len(fetched.flats) else None
        finally:
            with self._lock:
                fetched.readers -= 1
                fetched.used_s = now_s()
                if fetched is not self._fetched:
                    fetched.let_go()

    def change(self, policy_version: int, position: int) -> tuple[Delta, Tensor] | None:
        """What the publisher sends in the place of a bucket, if that is not the bucket; None also where it lies on a GPU."""
        versions = [(each.policy_version, each.changes) for each, _ in self._published]
        if (fetched := self._fetched) is not None:
            versions.append((fetched.manifest.policy_version, fetched.changes))
        for version, changes in versions:
            if version == policy_version and changes is not None and position < len(changes.deltas):
                delta, encoded = changes.deltas[position], changes.encoded[position]
                if delta is not None and encoded is not None and not encoded.is_cuda:
                    return delta, encoded
        return None

    def close(self) -> None:
        """End the server; what is fetched now is broken off."""
        self._server.shutdown()
        self._server.server_close()

    def _forget_idle(self) -> None:
        """Called under _lock."""
        fetched = self._fetched
        if fetched is not None and not fetched.readers and now_s() - fetched.used_s > IDLE_S:
            self._fetched = None
            fetched.let_go()


def _begin(snapshot: Snapshot, bound: Gap) -> _Fetched | None:
    """Keep a version to be fetched; None where a newer one is taking its place."""
    if not snapshot.hold():
        return None
    on_gpu, changes = any(flat.is_cuda for flat in snapshot.flat), snapshot.changes
    manifest = WeightManifest(
        policy_version=snapshot.policy_version,
        pg_generation=0,
        buckets=snapshot.sealed(),
        probes=snapshot.probes,
        bound=bound,
        deltas=changes.deltas if changes is not None and not on_gpu else (),
    )
    if not on_gpu:
        return _Fetched(manifest, snapshot.flat, changes, lambda: snapshot.release(arrived=False), now_s())
    side = SideStream(snapshot.flat[0].device)
    with side.current():
        flats = tuple(flat.cpu() for flat in snapshot.flat)
    side.finish()
    snapshot.release(arrived=False)
    return _Fetched(manifest, flats, None, lambda: None, now_s())


def _page(server: WeightServer, token: str) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = LONGEST_SILENCE_S
        disable_nagle_algorithm = True  # or what changed little would wait for the other end to acknowledge the head

        def do_GET(self) -> None:
            if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()):
                self._say(401, b"show the token of the learner's offer\n")
            elif self.path == "/weights":
                manifest = server.manifest()
                self._say(200, encode(manifest)) if manifest else self._say(503, b"no version can be fetched now\n")
            elif asked := re.fullmatch(r"/weights/(\d+)/(\d+)", self.path):
                self._send_bucket(int(asked[1]), int(asked[2]))
            elif asked := re.fullmatch(r"/weights/(\d+)/(\d+)/from/([0-9a-f]+)", self.path):
                change = server.change(int(asked[1]), int(asked[2]))
                if change is None or change[0].base != asked[3]:
                    self._say(404, b"what changed since then is not known; ask for the bucket\n")
                else:
                    self._send(change[1], "delta")
            else:
                self._say(404, b"no such page\n")

        def _send_bucket(self, policy_version: int, position: int) -> None:
            with server.bucket(policy_version, position) as flat:
                if flat is None:
                    self._say(410, b"this version has gone; ask for the manifest again\n")
                    return
                if self._send(flat, "whole") and server.change(policy_version, position) is not None:
                    DELTA_FALLBACKS.labels("not_held").inc()

        def _send(self, flat: Tensor, form: str) -> bool:
            """Send the range that was asked for; whether it is all of it."""
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
            first, size = int(asked[1]) if asked else -1, flat.numel()
            if not 0 <= first < max(size, 1):
                self._say(416, b"a range is bytes=FIRST-, and FIRST within the bucket\n")
                return False
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size - first))
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.end_headers()
            content = memoryview(flat.numpy().data)
            for start in range(first, size, CHUNK_BYTES):
                piece = content[start : start + CHUNK_BYTES]
                self.wfile.write(piece)
                WEIGHT_BYTES.labels(form).inc(len(piece))
            return first == 0

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the replica and the publisher say what came of it."""

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                log.debug("a replica broke off its request for weights")

    return Page
