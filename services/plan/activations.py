"""What a forward and backward hold besides weights and states: kept activations, one layer at work, the head.

The formulas follow the layer of Llama and Qwen as transformers 5 computes it (RMSNorm, rotary embedding, grouped queries, a gated
MLP) and what autograd keeps of each operation. Other decoders differ by a few tenths. Attention by spans has no mask; a model
that keeps its own, with a warning at start, takes the square of learner.row_tokens more.
"""

from services.plan.shape import ModelShape

FLOAT32 = 4


def kept_bytes(shape: ModelShape, width: int) -> int:
    """Bytes that autograd keeps of one token in one layer. width: bytes of an element.

    Each of the two norms keeps its input in float32, that input normalized, and its output, which three matrix products read.
    Attention keeps queries, keys, values and its output, and a float32 for each head. The MLP keeps what comes out
    of gate, its activation, up, and their product.
    """
    norms = 2 * shape.hidden * (FLOAT32 + 2 * width)
    attention = width * (2 * shape.attention_width + 2 * shape.kv_width) + FLOAT32 * shape.heads
    return norms + attention + 4 * shape.intermediate * width


def working_bytes(shape: ModelShape, width: int) -> int:
    """Bytes of one token in the layer whose backward runs: the gradients of the MLP's three widths and of the residual."""
    return width * (3 * shape.intermediate + 2 * shape.hidden)


def forward_bytes(shape: ModelShape, width: int) -> int:
    """Bytes of one token in the layer whose forward runs, when nothing is kept: the widest moment of the MLP, the residual and
    a norm in float32."""
    return width * (3 * shape.intermediate + 2 * shape.hidden) + FLOAT32 * shape.hidden


def kept_row_bytes(shape: ModelShape, width: int, *, checkpointing: bool) -> int:
    """Bytes of one token of a row when the backward begins: what all layers have kept, or with gradient checkpointing their
    inputs alone; and the last norm."""
    layer = width * shape.hidden if checkpointing else kept_bytes(shape, width)
    return shape.layers * layer + shape.hidden * (FLOAT32 + 2 * width)


def layer_at_work_bytes(shape: ModelShape, width: int, *, checkpointing: bool) -> int:
    """Bytes of one token in the layer whose backward runs; with gradient checkpointing its forward has run again before."""
    again = kept_bytes(shape, width) if checkpointing else 0
    return again + working_bytes(shape, width)


def head_bytes(shape: ModelShape, tokens: int, chunk: int, width: int, *, gpu: bool) -> int:
    """Bytes of the chunked head (learner/engine/head.py) in a forward and backward, whichever is more.

    tokens: response tokens of a micro-batch; chunk: rows of logits at once. In the backward: hidden states and their gradient,
    a chunk of logits in float32, which become their own gradient, and on a GPU that gradient in the model's dtype; the gradient
    of the head's weight in float32, and once more in the model's dtype.
    """
    states = tokens * shape.hidden * width
    narrow = width if gpu and width < FLOAT32 else 0
    logits = min(chunk, tokens) * shape.vocabulary * (FLOAT32 + narrow)
    backward = 2 * states + logits + shape.embedding * (FLOAT32 + (width if width < FLOAT32 else 0))
    return max(head_scoring_bytes(shape, tokens, chunk, width, gpu=gpu), backward)


def head_scoring_bytes(shape: ModelShape, tokens: int, chunk: int, width: int, *, gpu: bool) -> int:
    """Bytes of the head without a gradient: hidden states and a chunk of logits in float32, on a GPU in two tensors. A CPU needs
    the second for a few rows at a time alone."""
    return tokens * shape.hidden * width + min(chunk, tokens) * shape.vocabulary * FLOAT32 * (1 + gpu)
