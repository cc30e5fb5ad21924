"""Grader `code`: runs the tests of a task against the response's program, in the sandbox.

Start reading at grader.py, which finds the program in the response and runs one test after another; results.py says when
what came out is what a test expects. How a program is run is in verifier/sandbox.
"""
