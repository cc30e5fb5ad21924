"""The stream worker: claims trajectories, has them scored by the service, and hands the scored groups over.

Start reading at loop.py; client.py is one request and retry.py the waiting for a service that is away.
"""
