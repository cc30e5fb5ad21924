"""Scoring without a service: `ratchet verify` and the check of a dataset's references.

Start reading at __main__.py.
"""
