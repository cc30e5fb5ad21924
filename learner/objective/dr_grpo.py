"""Dr. GRPO (arXiv:2503.20783): GRPO's surrogate with the two biases of its normalization taken out.

    maximize  min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal,   A = R - group mean

summed over tokens and divided by a constant (learner.constant_tokens) times the number of sequences, never by the response's
length.
"""

from learner.objective.base import Objective
from learner.objective.grpo import grpo

OBJECTIVE = Objective(grpo)
