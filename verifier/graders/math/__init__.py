"""Grader `math`: finds the answer in a response, reads it and compares it as mathematics.

Start reading at grader.py. A response passes through extract.py (which part of it is the answer), notation.py with
notation_rules.py (one way of writing), read.py (the grammar: two ordered tables of readers) and compare.py (whether it says
the same as the reference). forms.py has what an answer can be; structure, words, lists, sets, equation, inequality,
environment and numeral hold the readers, and expression, regions, matrices and units the mathematics below them.
"""
