"""The soft punishment of overlong responses, for the grader `combine` and for learner.shaping."""


def overlong_punishment(response_tokens: int, *, max_tokens: int, buffer_tokens: int) -> float:
    """What is added to the reward for length: from -1 to 0 (DAPO, arXiv:2503.14476, equation 13; our reading).

    0 up to max_tokens - buffer_tokens, then linearly down to -1 at max_tokens, and -1 beyond. max_tokens: L_max; buffer_tokens:
    L_cache, at least 1.
    """
    over = response_tokens - (max_tokens - buffer_tokens)
    return -min(1.0, max(0, over) / buffer_tokens)
