"""The pool of grader processes, each of which can be killed without losing an item.

Start reading at pool.py. process.py is the pool's end of one process and grader_process.py the other end; forks.py is the
pool's end of the fork server and fork_server.py the other end; protocol.py is what they say to each other. fair_queue.py,
blame.py and attribution.py decide, without waiting for anything: which items are next, how a process ended, and who pays.
"""
