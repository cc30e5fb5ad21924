"""What rank 0 can refuse in seconds, it refuses before it loads a model: the folder here holds none."""

import json
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from learner.__main__ import main
from learner.checkpoint import Checkpoints
from learner.intake.ledger import Ledger
from learner.intake.leftovers import lost_groups
from learner.preparing import past_damage, prepare
from learner.ranks import Team
from learner.records import NOTHING_COUNTED
from learner.run_state import RunState
from services import library_logs
from services.config import RunConfig
from services.config.load import load
from services.entry import REDIS_URL_VARIABLE
from services.errors import InputError, WeightSyncError
from services.run.checkpoint_files import Damaged
from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import encode
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Path]:
    """A folder with a tokenizer and a dataset; the learner's arguments name both."""
    vocabulary = {character: position for position, character in enumerate("~0123456789+=")}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="~").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"prompt": "11+11=", "reference": "22"}) + "\n", encoding="utf-8")
    monkeypatch.setenv(REDIS_URL_VARIABLE, redis_url)
    arguments = [f"model.path={tmp_path}", f"runs_folder={tmp_path}/runs"]
    arguments += [f"{section}.source.path={data}" for section in ("prompts", "evaluation.prompts")]
    monkeypatch.setattr("sys.argv", ["learner", str(ROOT / "examples/addition/addition.toml"), *options(*arguments)])
    monkeypatch.setattr(library_logs, "apply", lambda: None)  # it would be for all tests that come after
    ours, handlers = logging.getLogger("ratchet"), logging.root.handlers[:]
    level = ours.level
    yield tmp_path
    logging.root.handlers[:] = handlers  # a service sets up its own
    ours.setLevel(level)


def options(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def refusal(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    monkeypatch.setattr("sys.argv", [*sys.argv, *options(*overrides)])
    with pytest.raises((InputError, WeightSyncError)) as refused:
        main()
    return str(refused.value)


def test_a_wrong_redis_password(start: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    secret = redis_url.split("@", maxsplit=1)[0].removeprefix("unix://:")
    monkeypatch.setenv(REDIS_URL_VARIABLE, redis_url.replace(secret, "not-it"))
    assert "password" in refusal(monkeypatch)


@pytest.mark.parametrize("section", ["prompts", "evaluation.prompts"])
def test_a_dataset_that_is_not_there(start: Path, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    assert "nowhere.jsonl" in refusal(monkeypatch, f"{section}.source.path={start}/nowhere.jsonl")


@pytest.mark.parametrize("setting", ["weights.port", "learner.metrics_port"])
def test_a_port_in_use(start: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refusal(monkeypatch, f"{setting}={taken.getsockname()[1]}")
    assert setting.rpartition(".")[2] in said


def test_weights_over_nccl_without_a_gpu(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "device=cuda", "weights.type=nccl")
    assert "NCCL" in said or "GPU" in said


def test_another_model_under_the_name_of_an_earlier_run(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before any model is loaded: there is none to load."""
    checkpoint = start / "runs" / "addition" / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    state = {"schema": 2, "made_of": {"model.path": {"is": "/models/before", "digest": "0"}}}
    (checkpoint / "state.json").write_text(json.dumps(state), encoding="utf-8")
    said = refusal(monkeypatch)
    assert f"model.path: was /models/before, is now {start}" in said
    assert "accept_changed=model.path" in said


def test_queues_of_an_earlier_run_whose_checkpoints_are_gone(
    start: Path, monkeypatch: pytest.MonkeyPatch, redis_connection: RedisConnection
) -> None:
    log = RedisIssueLog(redis_connection, RedisStream(redis_connection, "left-over", "prompts", "learner", 60.0))
    log.advance(10)
    said = refusal(monkeypatch, "name=left-over")
    assert "holds the queues of an earlier run named left-over: 10 groups were issued, and 10 of them are gone" in said


def checkpoint(config: RunConfig, version: int, *, trained: int, issued: int) -> Path:
    """A checkpoint after `version` steps that trained on the first groups."""
    state, ledger = RunState.begin(config.learner), Ledger()
    state.policy_version = version
    state.issued = issued
    for number in range(trained):
        ledger.train(number)
    checkpoints = Checkpoints(RunFolder(config.folder).checkpoints, keep=9)
    staging = checkpoints.begin(version)
    (staging / "rank-00000.pt").write_bytes(b"tensors")
    saved = {**state.to_dict(), "ledger": ledger.to_dict(), "counts": NOTHING_COUNTED}
    return checkpoints.commit(staging, version, saved)


@pytest.mark.parametrize("seen_by", ["its size", "its checksums"])
def test_what_a_damaged_checkpoint_had_acknowledged_is_issued_again(
    start: Path, redis_connection: RedisConnection, seen_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Groups 2 and 3 are on no stream any more, because a checkpoint held them as settled that cannot be used now."""
    arguments = [argument for argument in sys.argv[2:] if argument != "--set"]
    config = load(ROOT / "examples/addition/addition.toml", [*arguments, f"name=fallen-{seen_by.replace(' ', '-')}"])
    older = checkpoint(config, 2, trained=2, issued=4)
    newest = checkpoint(config, 4, trained=4, issued=6)
    prompts, scored = (
        RedisStream(redis_connection, config.name, name, "learner", 60.0) for name in ("prompts", "scored")
    )
    log = RedisIssueLog(redis_connection, prompts)
    for number in range(6):
        log.issue(number, encode(scored_group(number, rewards=[1.0, 0.0]).group.prompt))
    claims = prompts.claim(4, 0.0)
    prompts.hand_over_many(
        [(claim, encode(scored_group(number, rewards=[1.0, 0.0]))) for number, claim in enumerate(claims)], scored
    )
    scored.acknowledge(scored.claim(4, 0.0))

    engine = BigramEngine()
    if seen_by == "its size":
        (newest / "rank-00000.pt").write_bytes(b"ten")
    else:
        engine.damaged = {newest.name: Damaged(newest, "rank-00000.pt", "a changed bit")}
    prepared = prepare(config)
    try:
        whole = past_damage(config, Team(config, engine), prepared, weights_only=False)
    finally:
        prepared.health.close()
    assert whole.beginning.checkpoint == older
    assert (whole.beginning.state.policy_version, whole.beginning.ledger.counts(6)["trained"]) == (2, 2)
    assert lost_groups(whole.beginning.ledger, 6, [prompts, scored]) == [2, 3], "they are issued again"
    assert f"{newest}/rank-00000.pt is damaged: " in caplog.text
    assert "going on from step-00000002, the checkpoint before it" in caplog.text
