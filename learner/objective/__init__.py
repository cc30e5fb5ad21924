"""What a step maximizes, and the numbers that weight it: pure functions on ragged tensors.

Start with tokens.py (what an objective sees), base.py (what an objective is) and cispo.py (a short one). There is one file an
objective, under the name that its `type` has in run files; its settings are in services/config/objectives/ under the same name.
Shared by several: surrogate.py and ratios.py (ratios, clips, sums over sequences) and distillation.py. Not objectives, but used
by every step: advantage.py and baseline.py, importance.py, ess.py, aggregate.py, diagnostics.py. check.py tries an objective out
before a run begins. docs/writing-an-objective.md says how to add one.
"""

from learner.objective.base import Objective
from learner.objective.registry import OBJECTIVES

__all__ = ["OBJECTIVES", "Objective"]
