"""Ragged batches to draw from, and tokens made by hand."""

import dataclasses
import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from learner.objective.ratios import segment_sum
from learner.objective.tokens import Tokens

REWARDS = st.sampled_from([0.0, 1.0]) | st.floats(-2, 2).map(lambda x: round(x, 3))
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def groups(draw: st.DrawFn, rewards: st.SearchStrategy[float] = REWARDS) -> tuple[Tensor, Tensor]:
    """(reward float64 [N], group int64 [N]): one to four groups of two to eight with different rewards."""
    drawn = draw(
        st.lists(st.lists(rewards, min_size=2, max_size=8).filter(lambda r: max(r) > min(r)), min_size=1, max_size=4)
    )
    reward = torch.tensor([r for group in drawn for r in group], dtype=torch.float64)
    return reward, torch.tensor([g for g, group in enumerate(drawn) for _ in group])


def ragged(seed: int, sequences: int = 6) -> dict[str, Tensor]:
    """Log-probs, masks and advantages of `sequences` responses of 1 to 7 tokens, each with a token that counts."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (sequences,), generator=random)
    total = int(lengths.sum())
    logp = torch.rand(4, total, generator=random) * -4 - 0.01
    mask = torch.rand(total, generator=random) < 0.8
    mask[lengths.cumsum(0) - 1] = True
    return {
        "logp": logp[0],
        "behavior_logp": logp[1],
        "ref_logp": logp[2],
        "mask": mask,
        "lengths": lengths,
        "advantage": torch.randn(sequences, generator=random),
    }


def tokens_of(b: dict[str, Tensor], *, on_policy: bool = True, dtype: torch.dtype = torch.float32) -> Tokens:
    """The tokens of `ragged` that count, as an objective gets them. If on_policy, the proximal policy is the current one."""
    keep = b["mask"]
    lengths = segment_sum(keep.long(), b["lengths"])
    current = b["logp"][keep].to(dtype)
    other = (current + 0.3 * torch.sin(37 * current)).clamp(max=-0.01)
    return Tokens(
        logp=current.clone().requires_grad_(),
        current_logp=current,
        proximal_logp=current if on_policy else other,
        behavior_logp=b["behavior_logp"][keep].to(dtype),
        reference_logp=b["ref_logp"][keep].to(dtype),
        teacher_logp=torch.stack([b["ref_logp"][keep], b["behavior_logp"][keep]]).to(dtype),
        entropy=current.neg().sqrt(),
        hidden=torch.stack([b["advantage"].sin(), b["advantage"], b["advantage"].cos()], 1).to(dtype),
        predicted_hidden=torch.stack([b["advantage"].exp(), b["advantage"], b["advantage"].sin()], 1).to(dtype),
        reference_hidden=torch.stack([b["advantage"], b["advantage"].cos(), b["advantage"].sin()], 1).to(dtype),
        advantage=b["advantage"].to(dtype).repeat_interleave(lengths),
        lag_steps=torch.arange(len(current)) % 4,
        group=torch.arange(len(lengths)) // 2,
        lengths=lengths,
        statistics=torch.zeros(0, dtype=torch.float64),
    )


def tokens_at(
    ratio: list[float], advantage: list[float], lengths: list[int] | None = None, over: str = "proximal", **more: Tensor
) -> Tokens:
    """Tokens with these ratios current/`over`; all other policies are the current one."""
    count = len(ratio)
    current = torch.full((count,), math.log(0.5))
    base = Tokens(
        logp=current.clone().requires_grad_(),
        current_logp=current,
        proximal_logp=current,
        behavior_logp=current,
        reference_logp=current,
        teacher_logp=current[None],
        entropy=torch.zeros(count),
        hidden=torch.zeros(len(lengths or [count]), 0),
        predicted_hidden=torch.zeros(len(lengths or [count]), 0),
        reference_hidden=torch.zeros(len(lengths or [count]), 0),
        advantage=torch.tensor(advantage),
        lag_steps=torch.zeros(count, dtype=torch.int64),
        group=torch.zeros(len(lengths or [count]), dtype=torch.int64),
        lengths=torch.tensor(lengths or [count]),
        statistics=torch.zeros(0, dtype=torch.float64),
    )
    return dataclasses.replace(base, **{f"{over}_logp": current - torch.tensor(ratio).log(), **more})


def gradient(value: Tensor, tokens: Tokens) -> Tensor:
    """d value / d logp of each token. [T]."""
    return torch.autograd.grad(value.sum(), tokens.logp)[0]
