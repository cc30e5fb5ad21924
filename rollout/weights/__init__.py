"""A replica's end of the weight channel: it follows announcements, receives versions and reports what it holds.

Start reading at follower.py.
"""
