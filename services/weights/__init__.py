"""The way of the weights from the learner to every replica: buckets, a process group for each generation, and leases.

Start reading at channel.py, the interface; process_group.py is the one implementation, and membership.py says who takes
part. delta.py is how a bucket travels as what changed in it.
"""
