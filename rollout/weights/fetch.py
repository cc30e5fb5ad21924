"""Fetching a version from the learner's weight server by HTTP: the manifest, then each bucket, or what changed in it.

A request that breaks off is made again from the byte that it came to, until the deadline. One connection serves all buckets of a
version: to a learner that is far away each new one would begin slowly. learner/publish/weight_server.py is the other end.
"""

import http.client
from collections.abc import Callable
from urllib.parse import urlsplit

from torch import Tensor

from services.clock import Deadline, sleep
from services.errors import DeadlineExceeded, WeightSyncError
from services.wire.codec import decode
from services.wire.weights import WeightManifest, WeightSource

SILENCE_S = 10.0
"""How long a request may bring nothing before it is made again."""
PAUSE_S = 0.5
"""How long to wait before that."""
CHUNK_BYTES = 1 << 20
Wanted = Callable[[], bool]
"""Whether what is fetched is still wanted."""


class Refused(WeightSyncError):
    """The weight server answered, and did not give what was asked for."""

    def __init__(self, source: WeightSource, status: int, body: bytes) -> None:
        said = body[:200].decode(errors="replace").strip()
        super().__init__(f"the learner's weight server at {source.url} answered {status}: {said}")
        self.status = status


class Link:
    """A connection to the learner's weight server, made when it is needed and again when it has broken. Of one thread."""

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def ask(self, path: str, deadline: Deadline, first: int = 0) -> http.client.HTTPResponse:
        """The answer to a request. first: the byte to begin at. Raises WeightSyncError once the deadline has passed, and what the
        connection raises.

        Waits for: the learner's weight server to answer.
        Until: SILENCE_S, 10 seconds, or the deadline (deadlines.weight_transfer_s) if that is sooner.
        Ended by: the head of the answer, or an error of the connection.
        Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}, in the rollout process.
        """
        try:
            patience_s = min(SILENCE_S, deadline.remaining_s())
        except DeadlineExceeded as late:
            raise WeightSyncError(str(late)) from late
        if self._connection is None:
            address = urlsplit(self.source.url)
            self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=patience_s)
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(patience_s)
        headers = {"Authorization": f"Bearer {self.source.token}", "Range": f"bytes={first}-"}
        self._connection.request("GET", path, headers=headers)
        return self._connection.getresponse()

    def drop(self) -> None:
        """Close the connection: what is left of an answer is not read."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def fetch_manifest(source: WeightSource, deadline: Deadline) -> WeightManifest:
    """What is to be fetched now. Raises WeightSyncError, also where there is nothing yet."""
    with Link(source) as link:
        try:
            answer = link.ask("/weights", deadline)
            body = answer.read()
        except (OSError, http.client.HTTPException) as fault:
            raise WeightSyncError(f"the learner's weight server at {source.url} does not answer: {fault}") from fault
    if answer.status != 200:
        raise Refused(source, answer.status, body)
    return decode(body, WeightManifest)


def fetch_bucket(
    link: Link,
    policy_version: int,
    position: int,
    into: Tensor,
    deadline: Deadline,
    wanted: Wanted = lambda: True,
) -> None:
    """Fetch one bucket into a uint8 tensor of its size in host memory. Raises WeightSyncError when the version has gone, the
    server stays away until the deadline, or the version is not wanted any more."""
    _fetch(link, policy_version, position, "", into, deadline, wanted)


def fetch_delta(
    link: Link,
    policy_version: int,
    position: int,
    base: str,
    into: Tensor,
    deadline: Deadline,
    wanted: Wanted = lambda: True,
) -> bool:
    """Fetch what changed in one bucket, as `fetch_bucket` does. base: the digest of the bucket that it is put on. Returns False
    where the server does not have it (any more): then fetch the bucket."""
    try:
        _fetch(link, policy_version, position, f"/from/{base}", into, deadline, wanted)
    except Refused as fault:
        if fault.status != http.client.NOT_FOUND:
            raise
        return False
    return True


def _fetch(
    link: Link,
    policy_version: int,
    position: int,
    form: str,
    into: Tensor,
    deadline: Deadline,
    wanted: Wanted,
) -> None:
    """Fetch a bucket in one of its forms. form: what follows the bucket's number in the path.

    Waits for: the learner's weight server.
    Until: the deadline (deadlines.weight_transfer_s).
    Ended by: the last byte, a refusal, the deadline, or `wanted` being False.
    Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}, in the rollout process.
    """
    path = f"/weights/{policy_version}/{position}{form}"
    place, have, fault = memoryview(into.numpy().data), 0, "nothing came"
    while have < len(place):
        try:
            deadline.remaining_s()
        except DeadlineExceeded as late:
            raise WeightSyncError(
                f"bucket {position + 1} of version {policy_version} did not come from {link.source.url} in time, {have} of "
                f"{len(place)} bytes: {fault}"
            ) from late
        if not wanted():
            raise WeightSyncError(f"version {policy_version} is not wanted any more")
        try:
            have += _some(link, path, place[have:], have, deadline, wanted)
        except (OSError, http.client.HTTPException) as broken:
            fault = f"{type(broken).__name__}: {broken}"
        if have < len(place):
            sleep(PAUSE_S)


def _some(link: Link, path: str, place: memoryview, first: int, deadline: Deadline, wanted: Wanted) -> int:
    """Read what one request brings; returns how many bytes came, all unless it broke off."""
    have = 0
    try:
        answer = link.ask(path, deadline, first)
        if answer.status not in (200, 206):
            raise Refused(link.source, answer.status, answer.read())
        while have < len(place) and wanted():
            came = answer.readinto(place[have : have + CHUNK_BYTES])
            if not came:
                break
            have += came
    except TimeoutError:
        pass  # what came counts
    finally:
        if have < len(place):
            link.drop()
    return have
