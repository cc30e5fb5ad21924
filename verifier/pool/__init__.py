"""The pool of grader processes, each of which can be killed without losing an item.

Start reading at pool.py; process.py is the parent's end of one process, grader_process.py the other end, fork_server.py
where they are forked from, and protocol.py what they say to each other.
"""
