"""The stream worker: claims trajectories, has them scored over HTTP, and hands the scored groups over.

Start reading at loop.py.
"""
