"""Sampling: prompts in, groups of trajectories out.

Start reading at replica.py, which puts one replica together. loop.py is its sampling loop and engine.py the interface
that it samples through; vllm/ holds the one adapter, and weights/ the replica's end of the weight channel.
"""
