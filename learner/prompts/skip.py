"""Which problems are asleep: those that were always, or never, solved lately, until they are tried again."""

import numpy as np

from learner.prompts.measured import Measured
from learner.prompts.sampler import Mask
from services.config.samplers import SkipConfig


def awake(settings: SkipConfig, step: int, measured: Measured) -> Mask:
    """bool [R]: which problems may be issued after `step` learner steps, at least one of them.

    A problem falls asleep with its group number `after` in a row that was all right, or all wrong. After retry_steps it may be
    issued once more, and falls asleep again if nothing has changed. Where all would sleep, the one that was measured
    longest ago is awake.
    """
    if not settings.solved and not settings.unsolved:
        return np.ones(len(measured), dtype=np.bool_)
    asleep: Mask = np.zeros(len(measured), dtype=np.bool_)
    if settings.solved:
        asleep |= measured.streak >= settings.after
    if settings.unsolved:
        asleep |= measured.streak <= -settings.after
    since = step - np.maximum(measured.measured_step, measured.issued_step)
    asleep &= since < settings.retry_steps
    if asleep.all():
        asleep[measured.measured_step.argmin()] = False
    return ~asleep
