"""The three ways in which an item is judged, one a file: each takes items and gives a score for each.

process.py: in a grader process that can be killed. network.py: by asking another service. parts.py: by asking other graders
and making one verdict of theirs. Start reading at lane.py; verifier/grading.py chooses the lane.
"""
