"""Scoring: responses in, verdicts out; an error is never a zero reward.

Four buildings: http/ (the service), worker/ (from the stream to the service and back), pool/ (killable processes that run
graders) and offline/ (`ratchet verify` and the check of references). Beside them graders/, network/ (asking other
services) and sandbox/ (running programs). Start reading at service.py; a new grader starts at grader.py.
"""
