"""Conversations between policy and environment. Start reading at conversations.py, which samples one group of them.

dialogue.py turns messages into tokens; answers.py asks an environment and tells its faults from ours; metrics.py is what is
counted.
"""
