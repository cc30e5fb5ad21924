"""Which prompt is issued next: the source, the problem within it, and how many responses are sampled.

Start reading at plan.py: `PromptPlan` gives each sequence number a `Pick` and remembers it until its group is settled.
mixture.py chooses among sources; uniform.py, replay.py and curriculum.py choose within one, by what measured.py has recorded of
its problems; skip.py leaves out what teaches nothing now, and group_size.py says how large a group is. Every choice is a
function of the seed, the sequence number and the saved state, so a resumed run goes on as the run would have.
"""
