"""Fetching a version from the learner's weight server by HTTP: the manifest, then each bucket straight into its buffer.

A request that breaks off is made again from the byte that it came to, until the deadline. learner/publish/weight_server.py is the
other end.
"""

import http.client
from collections.abc import Callable
from urllib.parse import urlsplit

from torch import Tensor

from services.clock import Deadline, sleep
from services.errors import DeadlineExceeded, WeightSyncError
from services.wire.codec import decode
from services.wire.weights import WeightManifest, WeightOffer

SILENCE_S = 10.0
"""How long a request may bring nothing before it is made again."""
PAUSE_S = 0.5
"""How long to wait before that."""
CHUNK_BYTES = 1 << 20


def fetch_manifest(offer: WeightOffer, deadline: Deadline) -> WeightManifest:
    """What is to be fetched now. Raises WeightSyncError, also where there is nothing yet."""
    connection = _connect(offer, deadline)
    try:
        connection.request("GET", "/weights", headers=_headers(offer))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as fault:
        raise WeightSyncError(f"the learner's weight server at {offer.url} does not answer: {fault}") from fault
    finally:
        connection.close()
    if answer.status != 200:
        raise _refused(offer, answer.status, body)
    return decode(body, WeightManifest)


def fetch_bucket(
    offer: WeightOffer,
    policy_version: int,
    position: int,
    into: Tensor,
    deadline: Deadline,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Fetch one bucket into a uint8 tensor of its size in host memory. Raises WeightSyncError when the version has gone, the
    server stays away until the deadline, or the version is not wanted any more.

    Waits for: the learner's weight server.
    Until: the deadline (deadlines.weight_transfer_s).
    Ended by: the last byte, a refusal, the deadline, or `wanted` being False.
    Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}, in the rollout process.
    """
    place, have, fault = memoryview(into.numpy().data), 0, "nothing came"
    while have < len(place):
        try:
            deadline.remaining_s()
        except DeadlineExceeded as late:
            raise WeightSyncError(
                f"bucket {position + 1} of version {policy_version} did not come from {offer.url} in time, {have} of "
                f"{len(place)} bytes: {fault}"
            ) from late
        if not wanted():
            raise WeightSyncError(f"version {policy_version} is not wanted any more")
        try:
            have += _some(offer, f"/weights/{policy_version}/{position}", place[have:], have, deadline, wanted)
        except (OSError, http.client.HTTPException) as broken:
            fault = f"{type(broken).__name__}: {broken}"
        if have < len(place):
            sleep(PAUSE_S)


def _some(
    offer: WeightOffer, path: str, place: memoryview, first: int, deadline: Deadline, wanted: Callable[[], bool]
) -> int:
    """Read what one request brings; returns how many bytes came, all unless it broke off."""
    connection, have = _connect(offer, deadline), 0
    try:
        connection.request("GET", path, headers={**_headers(offer), "Range": f"bytes={first}-"})
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            raise _refused(offer, answer.status, answer.read())
        while have < len(place) and wanted():
            came = answer.readinto(place[have : have + CHUNK_BYTES])
            if not came:
                break
            have += came
    except TimeoutError:
        pass  # what came counts
    finally:
        connection.close()
    return have


def _connect(offer: WeightOffer, deadline: Deadline) -> http.client.HTTPConnection:
    address = urlsplit(offer.url)
    try:
        left_s = deadline.remaining_s()
    except DeadlineExceeded as late:
        raise WeightSyncError(str(late)) from late
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=min(SILENCE_S, left_s))


def _headers(offer: WeightOffer) -> dict[str, str]:
    return {"Authorization": f"Bearer {offer.token}"}


def _refused(offer: WeightOffer, status: int, body: bytes) -> WeightSyncError:
    said = body[:200].decode(errors="replace").strip()
    return WeightSyncError(f"the learner's weight server at {offer.url} answered {status}: {said}")
