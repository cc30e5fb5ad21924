"""Grader `instructions`: verifiable instructions on length, layout, wording and format. Start reading at grader.py."""
