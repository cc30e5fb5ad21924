"""The learning rate of each step, before the ESS factor."""

from services.config.optimizer import OptimizerConfig


def scheduled_learning_rate(settings: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of one learner step. step: learner steps taken before it, from 0. steps: in the whole run.

    Warm-up rises linearly to the full rate at step = warmup_steps. With schedule = "linear" the rate then falls in a straight
    line to final_fraction of it at the last step. Past the end the last rate holds.
    """
    warmup, step = settings.warmup_steps, min(step, steps - 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return settings.learning_rate * (1 - done * (1 - settings.final_fraction))
