"""From scored groups to the rows of an optimizer step.

Start reading at sift.py, which decides what is trained on; stale.py has the rules for stale tokens; step_batch.py declares
the columns of a batch; packing.py lays sequences into rows without padding, and a group's prompt once where that
saves tokens; micro_batch.py has the record that comes of it.
"""
