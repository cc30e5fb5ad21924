"""Grader `judge`: asks a language model whether a response meets a rubric.

Start reading at grader.py, which asks for votes and decides by them; prompt.py writes the question, with the response in a
block that it cannot leave, and answer.py reads what the judge said. How the model is reached is in verifier/network.
docs/judge.md says how to use it, and why a judge alone is not enough.
"""
