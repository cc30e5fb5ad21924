"""Attention whose cost is the sum of the squares of sequences, where a dense mask costs the square of a row.

layout.py: which tokens of a micro-batch attend to which, as the kernels want it. by_span.py: the attention function that
transformers calls. choice.py: whether a model gets it, decided by comparing it with the model's own masks.
"""
