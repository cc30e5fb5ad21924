"""Environment `verifiers`: environments of the package of that name (0.4 and later), in a Python of their own.

Start reading at environment.py. bridge.py is the program that runs there and holds the environment; process.py starts it, once
for all conversations of a replica, and asks it; rows.py writes the tasks of an environment as a dataset.
"""
