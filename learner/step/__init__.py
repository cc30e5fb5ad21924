"""One learner step: its optimizer steps, their baselines, and the report on them.

Start reading at learner_step.py, then `OptimizerStep.take`, which reads downwards: scores.py scores other policies,
baselines.py subtracts the baseline (exact.py is the arithmetic of the oracle), loss.py is what is differentiated, measure.py
says what came of it, and report.py declares every figure, with its metric.
"""
