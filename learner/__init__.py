"""Learning: scored groups in, policy versions out.

The wings in the order of a group's journey: intake/ (credits out, scored groups in), batch/ (groups to packed rows),
step/ (one optimizer step), engine/ (the model under DeepSpeed), objective/ (the losses), control/ (ESS, lag, the
ratchet, the learning rate) and publish/ (weights to the replicas). Start reading at loop.py: `TrainingLoop.run` is a turn;
preparing.py is what comes before any model is loaded.
"""
