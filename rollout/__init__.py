"""Sampling: prompts in, groups of trajectories out."""
