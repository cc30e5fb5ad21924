"""Where the figures of a run go besides its own files: TensorBoard always, other trackers by a setting each.

Start reading at tracker.py; outbox.py keeps any of them from ending or slowing the run.
"""
