"""From scored groups to the rows of an optimizer step.

Start reading at step_batch.py, which decides what is trained on; packing.py lays sequences into rows without padding.
"""
