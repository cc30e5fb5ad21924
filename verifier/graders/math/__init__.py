"""Grader `math`: finds the answer in a response, reads it and compares it as mathematics.

Start reading at grader.py. A response passes through extract.py (which part of it is the answer), notation.py with
characters.py, notation_rules.py and tex.py (one way of writing), read.py (the grammar: two ordered tables of readers) and
compare.py (whether it says the same as the reference). forms.py has what an answer can be; structure, words, lists,
qualifier, sets, equation, inequality, congruence, environment and numeral hold the readers; expression, equality, regions,
matrices and units hold the mathematics below them.
"""
