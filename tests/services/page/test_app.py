"""What the page says of a run, and the one thing that it does."""

import pytest

from services.page.app import ASSETS
from services.run.json_lines import JsonLines
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.wire.codec import decode
from services.wire.prompt import Prompt, is_sent_again
from tests.services.page.conftest import Page
from tests.services.page.written import HOSTILE, step_row

OWN = {"Origin": "http://127.0.0.1:8000"}


def test_the_state_has_curves_queues_and_the_dead(page: Page) -> None:
    client = page.enter()
    page.watch.look()
    state = client.get("/api/state").json()
    assert state["steps"]["columns"]["step"] == [1, 2, 3]
    assert state["steps"]["columns"]["pass_rate"] == [0.1, 0.2, 0.3]
    assert state["evaluations"] == [[0, 0.25]]
    assert state["queues"]["prompts"] == [0, 0]
    assert state["dead"]["count"] == 2
    assert state["dead"]["newest"][1]["cause"] == HOSTILE
    assert [row["can"] for row in state["dead"]["newest"]] == [False, True]
    assert state["run"]["steps"] >= 1


def test_later_answers_have_what_is_new(page: Page) -> None:
    client = page.enter()
    page.watch.look()
    with JsonLines(page.folder.steps) as lines:
        lines.write(**step_row(4))
    page.watch.look()
    fresh = client.get("/api/state", params={"since": 3, "revision": 0}).json()["steps"]
    assert not fresh["reset"]
    assert fresh["columns"]["step"] == [4]


def test_steps_that_a_later_start_takes_again_replace_the_earlier_ones(page: Page) -> None:
    client = page.enter()
    page.watch.look()
    with JsonLines(page.folder.steps) as lines:
        lines.write(**step_row(2, attempt=2))
    page.watch.look()
    fresh = client.get("/api/state", params={"since": 3, "revision": 0}).json()["steps"]
    assert fresh["reset"]
    assert fresh["columns"]["step"] == [1, 2]


def test_a_long_run_is_thinned_out(page: Page) -> None:
    with JsonLines(page.folder.steps) as lines:
        for step in range(4, 3001):
            lines.write(**step_row(step))
    page.watch.look()
    steps = page.enter().get("/api/state").json()["steps"]["columns"]["step"]
    assert len(steps) <= 700
    assert steps == sorted(set(steps))
    assert steps[-50:] == list(range(2951, 3001))
    assert steps[0] <= 6


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["train-3", "train-1", "train-2"]),
        ({"step_to": 3}, ["train-1", "train-2"]),
        ({"step_from": 3}, ["train-3"]),
        ({"reward_from": 0.5}, ["train-3", "train-1"]),
        ({"reward_to": 0.4}, ["train-2"]),
        ({"verdict": "mixed"}, ["train-3", "train-1"]),
        ({"verdict": "correct", "outcome": "trained"}, ["train-3", "train-1"]),
        ({"outcome": "dropped"}, ["train-2"]),
        ({"length_from": 3}, []),
        ({"lag_from": 1}, ["train-3"]),
    ],
)
def test_groups_are_filtered(page: Page, wanted: dict[str, str], found: list[str]) -> None:
    answer = page.enter().get("/api/groups", params=wanted).json()
    assert [row["group"] for row in answer["rows"]] == found
    assert answer["found"] == len(found)


def test_one_group_has_every_figure_of_its_tokens(page: Page) -> None:
    group = page.enter().get("/api/group", params={"step": 4, "group": "train-3"}).json()
    assert group["prompt"] == f"2+2= {HOSTILE}"
    first = group["responses"][0]
    assert first["detail"] == HOSTILE
    assert first["current_logp"] == [-0.25, -0.25]
    assert first["one_way_weight"] == [1.25, 1.25]
    assert first["spans"] == [[1, 0, 2]]


@pytest.mark.parametrize("group", ["train-9", "../../settings.toml"])
def test_a_group_that_is_not_kept_is_a_sentence(page: Page, group: str) -> None:
    answer = page.enter().get("/api/group", params={"step": 4, "group": group})
    assert answer.status_code == 404
    assert "is not kept: only the newest are (learner.kept_groups_mib)" in answer.text


def test_a_dead_group_goes_round_again_once(page: Page, redis_connection: RedisConnection) -> None:
    client = page.enter()
    assert client.post("/api/requeue", params={"group": "train-7"}, headers=OWN).status_code == 200
    stream = RedisStream(redis_connection, page.name, "prompts", "test", 1e8)
    (payload,) = stream.peek(10)
    sent = decode(payload, Prompt)
    assert sent.sequence_number == 7
    assert is_sent_again(sent)
    again = client.post("/api/requeue", params={"group": "train-7"}, headers=OWN)
    assert again.status_code == 409
    assert "was sent round again before" in again.text
    assert stream.depth().waiting == 1
    page.watch.look()
    assert client.get("/api/state").json()["dead"]["newest"][1]["requeued"] is not None


@pytest.mark.parametrize(
    ("group", "said"), [("1-0", "could not be decoded, so its prompt is not known"), ("x", "no dead group is called x")]
)
def test_what_cannot_be_requeued_says_why(page: Page, group: str, said: str) -> None:
    answer = page.enter().post("/api/requeue", params={"group": group}, headers=OWN)
    assert answer.status_code == 409
    assert said in answer.text


def test_the_page_says_that_there_is_no_redis(page: Page) -> None:
    page.folder.redis_url.unlink()
    page.watch.look()
    state = page.enter().get("/api/state").json()
    assert "the run has no Redis server now" in state["redis"]
    assert state["steps"]["columns"]["step"] == [1, 2, 3]


def test_all_that_is_shipped_is_small(page: Page) -> None:
    client = page.enter()
    sizes = [len(client.get("/" if name == "index.html" else f"/assets/{name}").content) for name in ASSETS]
    assert min(sizes) > 0
    assert sum(sizes) + len(client.get("/api/state").content) < 300_000
