"""One learner step: its optimizer steps, their baselines, and the report on them.

Start reading at learner_step.py, then optimizer_step.py.
"""
