"""Tests of the verifier: real grader processes, real HTTP."""
