"""Scoring: graders, the pool of killable processes they run in, the HTTP service before it, and the stream worker.

Start reading at service.py; a new grader starts at scorer.py.
"""
