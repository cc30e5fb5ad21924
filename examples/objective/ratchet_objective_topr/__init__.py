"""Tapered Off-Policy REINFORCE (arXiv:2503.14286). Every service imports settings.py, the learner alone functions.py."""
