"""DAPO (arXiv:2503.14476): GRPO's surrogate with a higher upper clip, a mean over all tokens of the step, and a dual clip.

    maximize  min(r A, clip(r, 0.8, 1.28) A), and where A < 0 at least 3 A,   r = current / proximal

The dual clip (arXiv:1912.09729) is that of the released code. Overlong shaping is a matter of the reward, and so of the verifier.
"""

from learner.objective.base import Objective
from learner.objective.grpo import grpo

OBJECTIVE = Objective(grpo)
