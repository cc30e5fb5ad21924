"""Where data enters the learner: prompts are issued as credits, and scored groups come back and are accounted for.

Start reading at collector.py; issuer.py and admission.py decide how many prompts are out, ledger.py what is whose.
"""
