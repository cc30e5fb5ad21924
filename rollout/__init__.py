"""Sampling: prompts in, groups of trajectories out.

Start reading at loop.py, the sampling loop; engine.py is the interface that it samples through, vllm/ the one adapter, and
weights/ the replica's end of the weight channel.
"""
