"""The stream worker against a real scoring service over HTTP, and against services that misbehave."""

import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.errors import InputError, StreamError
from services.streams import Claim, Stream
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from tests.fakes.openai_server import unused_url
from tests.fakes.streams import MemoryStream
from tests.verifier.running import running
from verifier.worker.loop import VerifierStreams


def trajectory(text: str) -> Trajectory:
    return Trajectory(
        token_ids=Array.of([1, 2], "<i4"),
        behavior_logp=Array.of([-0.5, -0.25], "<f4"),
        spans=(VersionSpan(3, 0, 2),),
        finish_reason="stop",
        text=text,
    )


def group(number: int, *texts: str, grader: str = "exact", reference: Any = "right", **options: Any) -> Group:
    prompt = Prompt(
        group_id=f"train-{number}",
        sequence_number=number,
        purpose="train",
        row=number,
        token_ids=Array.of([5], "<i4"),
        group_size=len(texts),
        temperature=1.0,
        max_tokens=4,
        stop_token_ids=(),
        seed=0,
        grader=grader,
        reference=reference,
        options=options,
    )
    return Group(prompt=prompt, trajectories=tuple(map(trajectory, texts)), replica_id="rollout-0")


class Wiring:
    """Streams in memory, and what the learner would see on the far side."""

    def __init__(self, trajectories: MemoryStream | None = None, **settings: Any) -> None:
        self.trajectories = trajectories or MemoryStream("trajectories", "verifier-0")
        self.scored = MemoryStream("scored", "learner")
        self.dead = MemoryStream("dead", "learner")
        given: dict[str, Any] = {"max_deliveries": 3, "renew_every_s": 0.1} | settings
        self.streams = VerifierStreams(self.trajectories, self.scored, self.dead, **given)

    def feed(self, *groups: Group) -> None:
        for one in groups:
            self.trajectories.append(encode(one))

    def settled(self, count: int, within_s: float = 20.0) -> tuple[dict[str, ScoredGroup], dict[str, DeadGroup]]:
        """Waits until `scored` and `dead` together have this many groups, and a little longer for one too many."""
        give_up_s = time.monotonic() + within_s
        while self._settled() < count:
            assert time.monotonic() < give_up_s, f"{self._settled()} of {count} groups settled"
            time.sleep(0.01)
        time.sleep(0.1)
        assert self._settled() == count
        scored = [decode(payload, ScoredGroup) for payload in self.scored.peek(10_000)]
        dead = [decode(payload, DeadGroup) for payload in self.dead.peek(10_000)]
        return {one.group.prompt.group_id: one for one in scored}, {one.group_id: one for one in dead}

    def _settled(self) -> int:
        return len(self.scored.peek(10_000)) + len(self.dead.peek(10_000))


def verdicts(scored: ScoredGroup) -> list[str]:
    return [score.verdict for score in scored.scores]


def test_a_service_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, unused_url())
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    wiring = Wiring()
    wiring.feed(group(1, "right", "wrong"))
    with running(None) as elsewhere, running(wiring.streams, url=elsewhere.url):
        scored, _ = wiring.settled(1)
    assert verdicts(scored["train-1"]) == ["correct", "incorrect"]


def test_groups_cross_with_a_verdict_for_each_trajectory_and_nothing_else_changed() -> None:
    wiring = Wiring(verifier_id="verifier-7")
    groups = [group(number, "right", "wrong", str(number)) for number in range(300)]
    wiring.feed(*groups)
    with running(wiring.streams, concurrent_groups=16):
        scored, dead = wiring.settled(300)
    assert not dead
    for one in groups:
        found = scored[one.prompt.group_id]
        assert verdicts(found) == ["correct", "incorrect", "incorrect"]
        assert [score.reward for score in found.scores] == [1.0, 0.0, 0.0]
        assert found.group == one
        assert found.verifier_id == "verifier-7"
    np.testing.assert_array_equal(
        found.group.trajectories[0].behavior_logp.numpy(), np.array([-0.5, -0.25], np.float32)
    )
    assert wiring.trajectories.depth().pending == 0


def test_a_group_without_a_verdict_goes_to_dead_with_its_cause_and_holds_up_no_other() -> None:
    wiring = Wiring()
    good = [group(number, "right", "wrong") for number in range(10)]
    wiring.feed(*good[:5], group(100, "right", "raise", grader="odd"), group(101, "sleep 9", grader="odd"), *good[5:])
    with running(wiring.streams, item_deadline_s=0.3, attempts=3) as verifier:
        assert verifier.url
        start_s = time.monotonic()
        while len(wiring.scored.peek(100)) < 10:
            assert time.monotonic() - start_s < 2.0, "the good groups wait for the bad ones"
            time.sleep(0.01)
        scored, dead = wiring.settled(12)
    assert set(scored) == {one.prompt.group_id for one in good}
    assert "1 of 2 responses got no verdict in 3 attempts; response 1: error: grader odd failed: RuntimeError" in (
        dead["train-100"].cause
    )
    assert "response 0: timeout: no verdict within 0.3 s" in dead["train-101"].cause
    assert dead["train-100"].stage == "trajectories"
    assert dead["train-100"].prompt is not None
    assert decode(dead["train-100"].payload, Group).trajectories[1].text == "raise"


def test_entries_that_cannot_be_scored_go_to_dead_each_with_its_cause() -> None:
    wiring = Wiring()
    wiring.trajectories.append(b"no record")
    wiring.trajectories.append(encode(group(1, "right").prompt))
    wiring.feed(
        group(2),
        group(3, "right", grader="maths"),
        group(4, "right", fuzzy=True),
        group(5, "right", reference=None),
        group(6, "right"),
    )
    with running(wiring.streams, attempts=1):
        scored, dead = wiring.settled(7)
    assert set(scored) == {"train-6"}
    causes = {name: one.cause for name, one in dead.items()}
    for cause, least in {"unreadable": 2, "empty": 1, "no_verdict": 3}.items():
        labels = {"room": "verifier", "cause": cause}
        assert (REGISTRY.get_sample_value("ratchet_dead_groups_total", labels) or 0) >= least
    assert "that are not a record" in causes["1-0"]
    assert "expected group schema 3, got prompt schema 3" in causes["2-0"]
    assert dead["1-0"].prompt is None
    assert dead["1-0"].payload == b"no record"
    assert "holds no trajectories" in causes["train-2"]
    assert 'unknown grader "maths"; known: combine, exact' in causes["train-3"]
    assert "unknown options fuzzy" in causes["train-4"]
    assert "reference must be a string or a number" in causes["train-5"]


def test_an_entry_that_was_claimed_too_often_goes_to_dead() -> None:
    stream = MemoryStream("trajectories", "verifier-0")
    stream.append(encode(group(1, "right")))
    for attempt in range(3):
        assert stream.as_consumer("verifier-0").claim(1, 0.0)[0].deliveries == attempt + 1
    wiring = Wiring(stream, max_deliveries=3)
    with running(wiring.streams):
        scored, dead = wiring.settled(1)
    assert not scored
    assert "claimed 4 times and never handed over" in dead["train-1"].cause


def test_claims_are_renewed_while_their_group_is_graded() -> None:
    stream = MemoryStream("trajectories", "verifier-0", reclaim_idle_s=0.5)
    wiring = Wiring(stream, renew_every_s=0.1)
    wiring.feed(group(1, "sleep 1.2", grader="odd"))
    other = stream.as_consumer("verifier-1")
    with running(wiring.streams, item_deadline_s=5.0):
        time.sleep(0.3)
        assert other.claim(1, 1.0) == []
        scored, _ = wiring.settled(1)
    assert verdicts(scored["train-1"]) == ["incorrect"]


def test_a_stop_finishes_what_was_claimed_and_leaves_the_rest() -> None:
    wiring = Wiring()
    wiring.feed(*[group(number, "sleep 0.1", grader="odd") for number in range(20)])
    with running(wiring.streams, concurrent_groups=4) as verifier:
        while not wiring.scored.peek(1):
            time.sleep(0.01)
        verifier.stop()
        left = wiring.trajectories.depth()
        assert left.pending == 0
        assert len(wiring.scored.peek(100)) + left.waiting == 20
        assert left.waiting > 0


def test_batches_larger_than_the_service_takes_are_split() -> None:
    wiring = Wiring()
    wiring.feed(*[group(number, "right", "x" * 300, "wrong") for number in range(40)], group(99, "right", "y" * 5000))
    with running(wiring.streams, max_batch_items=7, max_body_bytes=3000, attempts=1):
        scored, dead = wiring.settled(41)
    assert all(verdicts(one) == ["correct", "incorrect", "incorrect"] for one in scored.values())
    assert len(scored) == 40
    assert "verifier.max_body_bytes = 3000" in dead["train-99"].cause


@contextmanager
def service(answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]) -> Iterator[str]:
    """A scoring service of another make; `answer` gets the number of the request and its body."""
    numbers = iter(range(10_000))

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, body = answer(next(numbers), request)
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def right_answers(request: dict[str, Any]) -> dict[str, Any]:
    fields = {"verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.0}
    return {"results": [{"id": one["id"], **fields} for one in request["items"]]}


@pytest.mark.parametrize(
    "bad",
    [
        (503, {"Retry-After": "1"}, {"error": "saturated", "path": "$"}),
        (502, {}, {}),
        (404, {}, {"detail": "Not Found"}),
        (200, {}, {"results": []}),
        (
            200,
            {},
            {"results": [{"id": "train-1/0", "verdict": "error", "reward": 0.0, "detail": "", "elapsed_s": 0.0}]},
        ),
        (200, {}, "not the contract"),
    ],
)
def test_a_service_that_is_away_or_talks_nonsense_is_waited_for(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    wiring = Wiring()
    wiring.feed(group(1, "right"))
    start_s = time.monotonic()
    with (
        service(lambda number, request: bad if number < 3 else (200, {}, right_answers(request))) as url,
        running(wiring.streams, url=url),
    ):
        scored, dead = wiring.settled(1)
    assert not dead
    assert verdicts(scored["train-1"]) == ["correct"]
    assert ("Retry-After" in bad[1]) == (time.monotonic() - start_s > 3.0)
    about = [record.message for record in caplog.records if "the scoring service at" in record.message]
    assert len(about) == 2
    assert "is away" in about[0]
    assert "is back after" in about[1]


def test_a_service_that_comes_up_late_gets_everything() -> None:
    wiring = Wiring()
    wiring.feed(*[group(number, "right") for number in range(20)])
    with service(lambda _, request: (200, {}, right_answers(request))) as url:
        pass  # it is gone, its port known
    with running(wiring.streams, url=url):
        time.sleep(0.5)
        assert wiring.scored.peek(1) == wiring.dead.peek(1) == []
        port = int(url.rpartition(":")[2])
        with running(None, port=port):
            scored, dead = wiring.settled(20)
    assert len(scored) == 20
    assert not dead


def test_a_stop_in_the_middle_of_an_outage_ends_and_loses_nothing() -> None:
    wiring = Wiring()
    wiring.feed(group(1, "right"))
    with service(lambda _, request: (200, {}, right_answers(request))) as url:
        pass
    with running(wiring.streams, url=url):
        time.sleep(0.5)
    assert wiring.scored.peek(1) == wiring.dead.peek(1) == []
    (claim,) = wiring.trajectories.as_consumer("verifier-1").claim(1, 0.0)
    assert claim.deliveries == 1


def test_a_response_that_breaks_the_service_is_found_and_harms_no_other() -> None:
    def answer(_: int, request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if any(one["response"] == "poison" for one in request["items"]):
            return 500, {}, {"detail": "Internal Server Error"}
        return 200, {}, right_answers(request)

    wiring = Wiring()
    wiring.feed(*[group(number, "right", "right") for number in range(9)], group(9, "right", "poison"))
    with service(answer) as url, running(wiring.streams, url=url, attempts=2):
        scored, dead = wiring.settled(10)
    assert len(scored) == 9
    assert "response 1: error: the scoring service refused it: HTTP 500" in dead["train-9"].cause


class FlakyStream(MemoryStream):
    """Its server is away for every other call of each method.

    Counted by method: one count for all can fall into step with the worker, which then has every call of one method
    refused, waits longer each time, and takes its minute.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._calls: Counter[str] = Counter()

    def _maybe_away(self, method: str) -> None:
        self._calls[method] += 1
        if self._calls[method] % 2:
            raise StreamError("Redis at 127.0.0.1:1 cannot be reached")

    def claim(self, count: int, block_s: float) -> list[Claim]:
        self._maybe_away("claim")
        return super().claim(count, block_s)

    def renew(self, claims: Any) -> list[Claim]:
        self._maybe_away("renew")
        return super().renew(claims)

    def hand_over_many(self, results: Any, to: Stream) -> list[bool]:
        self._maybe_away("hand_over_many")
        return super().hand_over_many(results, to)


def test_a_stream_server_that_is_away_is_waited_for() -> None:
    wiring = Wiring(FlakyStream("trajectories", "verifier-0"))
    wiring.feed(*[group(number, "right") for number in range(10)], group(10, "raise", grader="odd"))
    with running(wiring.streams, concurrent_groups=3, attempts=1):
        scored, dead = wiring.settled(11)
    assert len(scored) == 10
    assert len(dead) == 1


@pytest.mark.parametrize("url", ["scorer:8000", "ftp://scorer", "http://", "http://[::1", ""])
def test_a_malformed_url_is_an_input_error(url: str) -> None:
    with pytest.raises(InputError, match=r"verifier\.url"), running(Wiring().streams, url=url):
        time.sleep(0.3)
