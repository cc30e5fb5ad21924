"""What the learner must not compute or hold: padding, the logits of all tokens, anything in Python for each token."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from learner.batch.packing import pack, pack_whole_groups
from learner.batch.step_batch import StepBatch, assemble
from learner.engine.policy_model import PolicyModel, inputs
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.wire.score import ScoredGroup
from tests.counts.calls import python_calls
from tests.learner.tiny import VOCABULARY, scored_group, write_tiny_model

SETTINGS = LearnerConfig(steps=1, groups_per_step=1)
PROMPT = [1, 2, 3]


def groups(tokens: int, count: int = 4) -> list[ScoredGroup]:
    """Groups of two responses, of this many tokens and of half as many."""
    lengths = tokens, max(1, tokens // 2)
    responses = [[5 + at % 7 for at in range(length)] for length in lengths]
    return [
        scored_group(
            number,
            rewards=[1.0, 0.0],
            prompt=PROMPT,
            responses=responses,
            versions=[[(0, length)] for length in lengths],
        )
        for number in range(count)
    ]


def batch(tokens: int) -> StepBatch:
    return assemble(groups(tokens), 0, SETTINGS)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("tokens", [2, 11, 40])
def test_no_token_is_padding(tokens: int, whole: bool) -> None:
    """One row in a micro-batch, as by default: what is computed are the tokens of the sequences, less what is shared."""
    made = batch(tokens)
    packed = (pack_whole_groups if whole else pack)(made, row_tokens=200, rows_per_micro_batch=1)
    assert packed is not None
    computed = sum(micro_batch.token_ids.numel() for micro_batch in packed)
    assert computed == 4 * (2 * len(PROMPT) + tokens + max(1, tokens // 2))
    shared = (pack_whole_groups if whole else pack)(made, row_tokens=200, rows_per_micro_batch=1, share_prompts=True)
    assert shared is not None
    # A prompt is there once for its two responses.
    assert sum(micro_batch.token_ids.numel() for micro_batch in shared) == computed - 4 * len(PROMPT)


class Large(TorchDispatchMode):
    """Counts the tensors over the vocabulary, of at least this many tokens, that any operation makes."""

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tokens = tokens
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.found += VOCABULARY in tensor.shape and tensor.numel() >= self.tokens * VOCABULARY
        return out


@pytest.mark.parametrize("chunk", [8, 4096])
def test_the_logits_of_all_tokens_are_never_in_memory(tmp_path: Path, chunk: int) -> None:
    """[T, V] is the largest thing that a step could hold. The head takes a chunk of tokens at a time."""
    settings = ModelConfig(path=str(write_tiny_model(tmp_path, hidden=8, layers=1)), max_length=64, dtype="float32")
    model = PolicyModel(settings, head_chunk_tokens=chunk, gradient_checkpointing=False)
    (micro_batch,) = pack(batch(22), row_tokens=400, rows_per_micro_batch=1)
    tokens = len(micro_batch.head_index)
    assert tokens == 4 * (22 + 11)
    with Large(tokens) as large:
        logp, entropy, _ = model(*inputs(micro_batch, torch.device("cpu")))
        (logp + entropy).sum().backward()
    # A chunk that holds all tokens makes them; that is the sabotage that this test has to see.
    assert (large.found == 0) == (chunk < tokens)


def test_no_python_runs_for_each_token_from_groups_to_rows() -> None:
    """Assembling and packing are arithmetic on whole arrays: Python calls do not grow with the responses."""

    def calls(tokens: int) -> int:
        made = groups(tokens)
        return python_calls(lambda: pack(assemble(made, 0, SETTINGS), row_tokens=10_000, rows_per_micro_batch=1))

    calls(8)  # what is made once
    assert calls(800) == calls(8)
