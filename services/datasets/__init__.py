"""From a file or a Hugging Face dataset to problems: a prompt, a reference answer and a grader for each row.

Start reading at dataset.py; sources.py reads rows, conventions.py knows the columns of public datasets, and rendering.py
turns a problem into the tokens of a prompt.
"""
