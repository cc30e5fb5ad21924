"""The records that travel between services: versioned, typed, encoded with msgpack, never pickled.

Start reading at codec.py; then prompt.py, trajectory.py and score.py in the order in which a group travels.
"""
