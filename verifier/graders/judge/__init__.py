"""Grader `judge`: asks a judging model. Start reading at grader.py."""
