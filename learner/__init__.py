"""Learning: scored groups in, policy versions out."""
