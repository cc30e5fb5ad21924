"""Small training runs of real processes, to which seeded random faults are done; after each the books are audited.

`python -m tests.chaos` runs the whole; test_chaos.py has a short sample, and the sabotaged builds that it has to catch.
`storm.py` is one run, `faults.py` what is done to it, `stage.py` and `processes.py` what it is made of, `wires.py` and
`networks.py` what is between them, `clocks.py` what time they take it for.
"""
