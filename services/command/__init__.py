"""The `ratchet` command line: the supervisor of one machine, checks before a run, the display, reports and status.

The top floor: it starts the other rooms as processes, and nothing imports it. Start reading at cli.py, then up.py.
"""
