"""Runs graded code where it can do no harm: bubblewrap around a small runner, limits around both.

Start reading at session.py; probe.py finds out whether this machine offers a sandbox, docs/sandbox.md says what one needs.
"""
