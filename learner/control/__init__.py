"""Controllers: how far data may lag, how large a step may be, when the reference policy moves, what the learning rate is.

Each is a function of facts or a small object that can be saved; none reads a clock. Start reading at ess.py.
"""
