"""Publishing weights: a snapshot of each policy version, and the thread that brings it to every replica and has it proved.

Start reading at publisher.py: the thread, and what the training loop sees of it. replica_group.py forms the process group and
sends a version, roll_call.py collects the replicas' confirmations and finds who failed, exclusions.py decides who is left out
and for how long, and patience.py when going without replicas ends the run. snapshot.py packs the weights, and changes.py says
what of them has changed. docs/operating.md says who waits for whom when weights do not reach a replica.
"""
