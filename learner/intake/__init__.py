"""Where data enters the learner: prompts go out as credits, and scored groups come back and are accounted for.

Start reading at intake.py: `Intake.gather` collects the groups of one step. collector.py claims them from the streams, issuer.py
and admission.py decide how many prompts are out, ledger.py records what became of each group, and lost.py issues again what the
server has lost. step_guard.py writes down which groups a step begins with. depths.py shows on the metrics page how much is on
each stream.
"""
