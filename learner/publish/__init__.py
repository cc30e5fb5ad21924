"""Publishing weights: the snapshot of a policy version, and the thread that brings it to every replica.

Start reading at publisher.py; roll_call.py collects confirmations, exclusions.py decides who is left out, and for how long.
"""
