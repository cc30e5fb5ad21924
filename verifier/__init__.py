"""Scoring: responses in, verdicts out; an error is never a zero reward.

http/ is the service and worker/ brings groups from the stream to it and back. grading.py sends each item to its lane in
lanes/: pool/ (killable processes that run graders), network/ (asking other services) or several graders combined. graders/
are the graders themselves, sandbox/ runs programs for one of them, and offline/ is `ratchet verify` and the check of
reference answers. Start reading at service.py; to write a grader, start at grader.py.
"""
