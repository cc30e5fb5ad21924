"""The ground floor that every room stands on, and the command line on top of everything.

What all services share: settings (config/), records on the wire (wire/), Redis streams (streams/), the weight channel and
its membership (weights/), the reading of datasets (datasets/) and the files of a run (run/). command/ is the `ratchet`
command line; nothing imports it. Start reading at config/run.py, which is a whole run on one page.
"""
