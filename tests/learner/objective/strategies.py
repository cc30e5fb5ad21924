"""Ragged batches to draw from."""

import torch
from hypothesis import strategies as st
from torch import Tensor

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
    """Log-probs and friends of `sequences` responses of 1 to 7 tokens; each has a token that counts."""
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
