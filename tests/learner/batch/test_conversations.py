"""Conversations in a batch: every token is read where the engine read it, and only what the policy sampled is trained on."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import one_each, pack, pack_whole_groups
from learner.batch.sift import sift
from learner.batch.step_batch import StepBatch, assemble, split
from learner.engine.policy_model import PolicyModel, inputs
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import WireError
from services.wire.codec import decode, encode
from services.wire.score import ScoredGroup
from services.wire.trajectory import Turn
from tests.learner.talks import logp_of_the_whole, talks, turn
from tests.learner.tiny import scored_group, write_tiny_model

SETTINGS = LearnerConfig(steps=1, groups_per_step=3, row_tokens=64)
PROMPT = [3, 1, 4, 1]
GROUPS = [
    talks(0, [[turn(3), turn(2, [9, 8])], [turn(1), turn(1, [7]), turn(4, [6, 5, 4])]], prompt=PROMPT),
    talks(
        1,
        [
            [turn(2), turn(3, [1, 2, 3, 4, 5], restarts=True), turn(1, [6, 6])],
            [turn(2, [2, 2, 8], restarts=True), turn(2, [1])],
            [turn(5)],
        ],
        prompt=PROMPT,
    ),
    scored_group(2, rewards=[1.0, 0.0, 0.5]),
]
LAYOUTS: dict[str, Callable[[StepBatch], list[MicroBatch]]] = {
    "packed": lambda batch: pack(batch, row_tokens=64, rows_per_micro_batch=2),
    "shared prompts": lambda batch: pack(batch, row_tokens=64, rows_per_micro_batch=1, share_prompts=True),
    "whole groups": lambda batch: pack_whole_groups(batch, row_tokens=64, rows_per_micro_batch=2) or [],
    "rows of their own": lambda batch: pack(batch, row_tokens=64, rows_per_micro_batch=4, share_rows=False),
    "one by one": one_each,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), tied=True)


@pytest.fixture(scope="module")
def plain(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model


def expected(plain: PreTrainedModel) -> torch.Tensor:
    return torch.cat(
        [
            logp_of_the_whole(plain, group.group.prompt.token_ids.numpy().tolist(), one)
            for group in GROUPS
            for one in group.group.trajectories
        ]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_probs_and_gradients_are_those_of_a_forward_of_each_whole_conversation(
    layout: str, folder: Path, plain: PreTrainedModel
) -> None:
    batch = assemble(GROUPS, 0, SETTINGS)
    settings = ModelConfig(path=str(folder), max_length=64, dtype="float32")
    own = PolicyModel(settings, head_chunk_tokens=4, gradient_checkpointing=False)
    weight = torch.linspace(-1.0, 1.0, len(batch.response_ids))  # tells the tokens apart in the gradient
    logp = torch.full((len(batch.response_ids),), torch.nan)
    for micro_batch in LAYOUTS[layout](batch):
        seen = own(*inputs(micro_batch, torch.device("cpu")))[0]
        logp[micro_batch.token_index] = seen.detach()
        (seen * weight[micro_batch.token_index]).sum().backward()
    plain.zero_grad()
    whole = expected(plain)
    (whole * weight).sum().backward()
    assert torch.allclose(logp, whole, atol=1e-4)
    theirs = dict(plain.named_parameters())
    for name, parameter in own.named_weights():
        gradient = theirs[name].grad
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-4), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_the_environment_says_is_in_the_rows_and_on_no_axis(layout: str) -> None:
    batch = assemble(GROUPS, 0, SETTINGS)
    micro_batches = LAYOUTS[layout](batch)
    sampled = sum(len(one) for group in GROUPS for one in group.group.trajectories)
    assert len(batch.response_ids) == len(batch.mask) == int(batch.cu_seqlens[-1]) == sampled
    assert sum(int(one.lengths.sum()) for one in micro_batches) == sampled
    for micro_batch in micro_batches:
        flat = micro_batch.token_ids.flatten()
        assert len(micro_batch.head_index.unique()) + _shared(micro_batch) >= len(micro_batch.head_index)
        assert torch.equal(batch.response_ids[micro_batch.token_index], micro_batch.target_ids)
        # The predicted token is the next in its row, but for the first behind a prompt that several share.
        follows = flat[(micro_batch.head_index + 1).clamp(max=len(flat) - 1)] == micro_batch.target_ids
        assert int((~follows).sum()) <= _shared(micro_batch)


def _shared(micro_batch: MicroBatch) -> int:
    return len(micro_batch.spans.continues) - micro_batch.spans.continues.count(None)


def test_a_part_of_a_batch_keeps_what_was_said_in_it() -> None:
    batch = assemble(GROUPS, 0, SETTINGS)
    parts = split(batch, 3)
    assert [read for part in parts for read in part.read] == list(batch.read)
    assert [len(read) for read in batch.read] == [1, 2, 2, 1, 0, 0, 0, 0]


def test_stale_tokens_of_one_turn_are_masked_and_the_environments_are_never_counted() -> None:
    group = talks(0, [[turn(2), turn(2, [9])], [turn(4)]], versions=[[(0, 2), (3, 2)], [(3, 4)]])
    settings = SETTINGS.model_copy(update={"stale_tokens": "mask", "max_lag": 1})
    sifted = sift(group, 3, settings)
    assert [list(one.mask) for one in sifted.kept] == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert sifted.masked_tokens == 2


def test_the_reward_of_a_conversation_is_the_sum_of_its_turns() -> None:
    (one, other) = talks(
        0, [[turn(1, reward=0.5), turn(1, [1]), turn(1, [2], reward=0.25)], [turn(1)]]
    ).group.trajectories
    assert one.reward == 0.75
    assert other.reward is None


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([turn(2), turn(1, [1])], "turns have 3 tokens of the policy, the trajectory 4"),
        ([turn(4), turn(0, [1])], "turn 2 has 0 tokens"),
        ([turn(2, [5]), turn(2)], "turn 1 has 1 tokens between the prompt and the response"),
        ([turn(2), turn(2, restarts=True)], "turn 2 restarts the sequence with nothing"),
        ([turn(2), turn(2, [1], reward=float("nan"))], "turn 2 has the reward nan"),
    ],
)
def test_turns_that_make_no_sequence_are_refused_by_number(turns: list[Turn], said: str) -> None:
    group = talks(0, [[turn(4)], [turn(4)]])
    first = msgspec.structs.replace(group.group.trajectories[0], turns=tuple(turns))
    broken = msgspec.structs.replace(group.group, trajectories=(first, group.group.trajectories[1]))
    with pytest.raises(WireError, match=said):
        msgspec.structs.replace(group, group=broken).check()


def test_a_conversation_goes_over_the_wire_whole_and_a_record_of_before_is_refused_by_name() -> None:
    for group in GROUPS:
        group.check()
        assert decode(encode(group), ScoredGroup) == group
    body = msgspec.to_builtins(GROUPS[0], builtin_types=(bytes,))
    with pytest.raises(WireError, match="expected scored-group schema 3, got scored-group schema 2"):
        decode(msgspec.msgpack.encode(("scored-group", 2, body)), ScoredGroup)


def test_a_group_of_equal_outcomes_counts_where_its_turns_differ_and_turns_are_compared() -> None:
    early, late = [turn(1, reward=1.0), turn(1, [5], reward=0.0)], [turn(1, reward=0.0), turn(1, [5], reward=1.0)]
    compared = {"advantage": {"baseline": "mean", "turns": {"discount": 0.9}}}

    def drop(turns: list[list[Turn]], **changes: object) -> str | None:
        group = talks(0, turns)
        equal = tuple(msgspec.structs.replace(score, reward=1.0, verdict="correct") for score in group.scores)
        settings = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, **changes})
        return sift(msgspec.structs.replace(group, scores=equal), 0, settings).drop

    assert drop([early, late], **compared) is None
    assert drop([early, early], **compared) == "zero_variance"
    assert drop([early, late]) == "zero_variance"
    assert drop([early, late], zero_variance_of="verdict", **compared) == "zero_variance"


def test_each_token_knows_its_turn_and_what_the_environment_gave_for_it() -> None:
    group = talks(0, [[turn(3, reward=0.5), turn(2, [9])], [turn(2, reward=1.0)]])
    batch = assemble([group, scored_group(1, rewards=[0.0, 1.0], responses=[[1], [2]])], 0, SETTINGS)
    assert batch.turn.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert batch.turn_reward.tolist() == [0.5] * 3 + [0.0] * 2 + [1.0] * 2 + [0.0] * 2
