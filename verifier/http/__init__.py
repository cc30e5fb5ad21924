"""The HTTP service: its routes (scoring.py, pages.py), the limits and tokens in front of them, and the server itself.

Start reading at scoring.py, which is one request from its body to its answer; app.py puts the routes together.
"""
