"""A replica's end of the weight channel.

Start reading at follower.py: in the rollout process, it follows the learner's announcements and confirms what the
replica holds. receiver.py runs inside the engine's workers: it receives a version, whose bytes come and are proved in
arrival.py.
"""
