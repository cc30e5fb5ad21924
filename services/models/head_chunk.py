"""How many tokens' logits the learner's head has in memory at once, where the run file does not say."""

LOGIT_BYTES = {"cuda": 2**30, "cpu": 2**27}
"""Memory for the logits of a chunk where learner.head_chunk_tokens is not set, by device."""


def chunk_tokens(vocabulary: int, device: str) -> int:
    """Tokens in a chunk whose two float32 tensors take LOGIT_BYTES. device: "cpu" or "cuda"."""
    return max(1, LOGIT_BYTES[device] // (2 * 4 * vocabulary))
