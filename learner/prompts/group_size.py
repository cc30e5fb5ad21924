"""How many responses are sampled for a problem: more where its rewards vary more."""

import math

from services.config.samplers import AdaptiveGroupConfig


def group_size(settings: AdaptiveGroupConfig | None, pass_rate: float, usual: int, *, odd: bool) -> int:
    """The size of the next group of a problem.

    least + (most - least) x 4 p (1 - p), rounded: rewards of 0 and 1 have the variance p (1 - p), at most a quarter. A step's
    mean is over responses, so prompts with larger groups count for more in it. pass_rate: p, nan when it is not known; then the
    usual size. odd: the size is odd, as baseline = "median" needs; so are `least` and `most` then.
    """
    if settings is None or math.isnan(pass_rate):
        return usual
    spread = 4.0 * pass_rate * (1.0 - pass_rate)
    size = settings.least + (settings.most - settings.least) * spread
    return settings.least + 2 * round((size - settings.least) / 2) if odd else round(size)
