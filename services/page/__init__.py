"""The live page of a run: what `ratchet status` says, once a second, in a browser, and its newest groups token by token.

It reads the run's folder, its Redis server and each service's /metrics, and changes nothing, but for one thing: it sends a dead
group round again. Start reading at `app.py` for the routes and at `watch.py` for what they show. No module imports it: it is a
process of its own (`ratchet page`), which a run does not need.
"""
