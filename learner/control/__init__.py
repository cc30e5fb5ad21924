"""Controllers: how far data may lag, how large a step may be, when the reference policy moves, and what the learning rate is.

Each is a pure function of facts, or a small object that can be saved; none reads a clock. Start reading at ess.py (step size
and lag window, with lag_window.py); ratchet.py moves the reference policy, schedule.py sets the learning rate, and
suspicion.py finds the group that kills the learner.
"""
