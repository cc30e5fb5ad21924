"""What a sync of weights costs with up to 1,000 replicas and 64 learner ranks, by the run's own state machines on fake wires.

`ReplicaGroup` with its roll call, attendance, patience and exclusions, `Membership` and its readers, and one `WeightFollower`
for each replica are the run's own, in one process on a virtual clock (virtual.py). Fake are the Redis server (server.py),
which executes the scripts of the control plane and counts, the wires of the weights (network.py), engines and the training
loop (fleet.py, learner.py). What a wire or a command takes is assumed, and is said where it stands; what is sent, and who
waits for whom, is not. Start reading at `__main__.py`.
"""
