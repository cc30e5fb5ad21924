"""Whether a model keeps the sequences of a row apart: measured at start, on the model itself.

transformers keeps packed sequences apart by their restarting positions, where a model's code looks at positions. Recurrent and
convolution layers carry their state into the next sequence instead, and some models count positions along the row. Nothing
else shows that: the step is finite, and only its log-probs are wrong. A prompt that is in a row once for several responses is
compared in the same way.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.policy_model import scoring_batch
from services.errors import InputError

log = logging.getLogger("ratchet.learner")

LENGTHS = (11, 7, 13, 5)
"""Tokens of the sequences that are compared. Short ones: what leaks from the sequence before is largest just behind it."""
BOUND_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.03}
"""Mean difference of a token's log-prob that is still rounding. Over tiny models of seven architectures that keep sequences
apart it was at most 1e-6 in float32 and 8e-3 in bfloat16; over four that do not, at least 0.35 in either (docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Separation:
    """Mean differences of log-probs between a sequence among others and the same sequence alone, in nats."""

    packed_nats: float
    """Behind other sequences in the same row."""
    beside_nats: float
    """In a row of its own, padded, with other rows in the same forward."""
    shared_nats: float
    """Behind tokens that the row has once for several sequences; inf where the model cannot do that at all."""


def measure_separation(
    score: Callable[[Sequence[MicroBatch]], list[Tensor]], *, vocabulary: int, longest: int, by_span: bool
) -> Separation:
    """score: log-probs ([M] for each micro-batch) of the model. vocabulary: token ids are drawn below it. longest: tokens
    that a row may have for every model, 8 or more. by_span: whether the model attends by spans."""
    draw = torch.Generator().manual_seed(0)
    room = min(longest, sum(LENGTHS))
    lengths = [max(2, length * room // sum(LENGTHS)) for length in LENGTHS]
    sequences = [torch.randint(vocabulary, (length,), generator=draw).tolist() for length in lengths]
    packed, beside, *alone = score(
        [
            scoring_batch([sequences]),
            scoring_batch([[sequence] for sequence in sequences]),
            *(scoring_batch([[sequence]]) for sequence in sequences),
        ]
    )
    own = torch.cat(alone)
    shared = math.inf
    if by_span:
        stem, *ends = sequences
        branches = [[*stem, *end] for end in ends]
        once, *apart = score(
            [scoring_batch([branches], len(stem), share=True)]
            + [scoring_batch([[branch]], len(stem)) for branch in branches]
        )
        shared = float((once - torch.cat(apart)).abs().mean())
    return Separation(float((packed - own).abs().mean()), float((beside - own).abs().mean()), shared)


def may_share_prompts(name: str, separation: Separation, dtype: torch.dtype) -> bool:
    """Whether a prompt may be in a row once for several responses, for a model whose sequences may share a row."""
    if separation.shared_nats <= BOUND_NATS[dtype]:
        return True
    if math.isfinite(separation.shared_nats):
        log.warning(
            "%s scores responses differently where their prompt is in the row once for several of them, by %.2g nats a token. "
            "The learner computes the prompt with each response: the steps are right, and slower where prompts are long",
            name,
            separation.shared_nats,
        )
    return False


def may_pack(name: str, separation: Separation, dtype: torch.dtype) -> bool:
    """Whether several sequences may share a row. Logs a warning if not. name: of the model, for messages.

    Raises InputError for a model whose log-probs change with the other rows of a forward: it cannot be trained in batches.
    """
    bound = BOUND_NATS[dtype]
    if not separation.beside_nats <= bound:
        raise InputError(
            f"{name}: the log-probs of a sequence change by {separation.beside_nats:.2g} nats a token with the other rows of "
            f"its batch, and rounding explains at most {bound:.2g}; take a model whose sequences do not depend on each other"
        )
    if separation.packed_nats <= bound:
        return True
    log.warning(
        "%s does not keep the sequences of a packed row apart: behind another sequence their log-probs differ by %.2g nats a "
        "token from those alone, and rounding explains at most %.2g. Its layers carry a state along the row, or count "
        "positions along it. The learner lays one sequence in a row instead: the steps are right, and slower where responses "
        "are shorter than the longest of their micro-batch. learner.packed_rows = false says so from the start",
        name,
        separation.packed_nats,
        bound,
    )
    return False
