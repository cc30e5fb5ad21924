"""[learner.objective]: the settings of every objective, without torch.

One file an objective, under the name that its `type` has in run files; learner/objective/ has its mathematics in a file of the
same name. Start with base.py, which says what an objective may declare, and cispo.py, a short one. registry.py finds the files,
and the objectives of installed packages. docs/writing-an-objective.md says how to add one.
"""
