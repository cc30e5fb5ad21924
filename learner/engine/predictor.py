"""The predictor of POPO (arXiv:2605.06650): from a response's mean hidden state to what the slow twin's should be.

A part of the model that is trained, so that the optimizer, the checkpoint and every ZeRO stage have it; not a part of the policy,
so that neither snapshots nor exports nor the reference do.
"""

import torch
from torch import Tensor, nn

SEED = 0
"""The same first weights on every rank and in every run."""


class Predictor(nn.Module):
    """Two layers with layer normalization and a ReLU between them, in the manner of BYOL (arXiv:2006.07733)."""

    def __init__(self, hidden: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            layers = nn.Linear(hidden, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, hidden)
        self.layers = nn.Sequential(*layers).to(dtype)
        self.dtype = dtype

    def forward(self, hidden: Tensor) -> Tensor:
        """float32 [n, H] to float32 [n, H]."""
        predicted: Tensor = self.layers(hidden.to(self.dtype))
        return predicted.float()
