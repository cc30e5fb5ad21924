"""Grader `instructions`: checks constraints on length, layout and wording that a program can check, as in IFEval.

Start reading at grader.py. Each constraint is a class: length.py has those on length, layout.py those on what a response
contains and how it is laid out, wording.py those on words, letters and case. text.py is their base, and counts words and
sentences for them. A new constraint is one more class, added to the union at the end of its file.
"""
