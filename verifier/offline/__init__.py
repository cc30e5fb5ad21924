"""Scoring without a service: `ratchet verify`, and the check of a dataset's reference answers (check_references.py).

Start reading at __main__.py; lines.py reads the file and report.py is what it prints.
"""
