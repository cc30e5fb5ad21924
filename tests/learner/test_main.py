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
from services import library_logs
from services.entry import REDIS_URL_VARIABLE
from services.errors import InputError, WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream

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
    state = {"schema": 1, "made_of": {"model.path": {"is": "/models/before", "digest": "0"}}}
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
