"""How much memory a run takes, computed from its settings and the shape of its model before anything starts.

Start reading at plan.py. Everything here is arithmetic on plain numbers: no torch, no GPU, no weights. The formulas are checked
against measured peaks by `python -m benchmarks.plan`.
"""
