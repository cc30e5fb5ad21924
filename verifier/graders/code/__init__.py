"""Grader `code`: runs a program's tests in the sandbox. Start reading at grader.py."""
