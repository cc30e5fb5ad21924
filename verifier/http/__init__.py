"""The HTTP service: routes, limits before them, and tokens. Start reading at app.py."""
