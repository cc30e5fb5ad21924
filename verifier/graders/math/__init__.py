"""Grader `math`: finds the answer in a response, reads it and compares it as mathematics. Start reading at grader.py."""
