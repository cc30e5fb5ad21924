"""Imported last of all by the process that tests fork others from (forking.py): what is there by now stays.

DeepSpeed collects garbage several times as an engine starts, and each time the collector would look through every module.
"""

import gc

gc.collect()
gc.freeze()
