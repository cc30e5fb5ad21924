"""What one rank of the learner holds on its device.

Gradients and states are those of DeepSpeed 0.19.8 as learner/engine/deepspeed_setup.py configures it; the formulas were read out
of runtime/bf16_optimizer.py, zero/stage_1_and_2.py and zero/stage3.py. `python -m benchmarks.plan` compares them with measured
peaks on one rank.
N: all parameters, T: those that are trained, R: ranks, b: bytes of a weight.
"""

from dataclasses import dataclass

from services.config import RunConfig
from services.models.adapted import trainable_parameters
from services.models.head_chunk import chunk_tokens
from services.plan import activations
from services.plan.host import FETCHED, bucket_bytes, delta_parts, reference_copies, reference_dtype_bytes
from services.plan.parts import GIB, Part
from services.plan.replica import COLLECTIVE_BUFFERS, dtype_bytes
from services.plan.shape import ModelShape

FLOAT32 = 4
REDUCE_ELEMENTS = 500_000_000
"""Gradients that DeepSpeed reduces at once: reduce_bucket_size of zero/config.py, which we leave alone."""
SUB_GROUP_ELEMENTS = 1_000_000_000
"""Parameters that stage 3 steps at once: sub_group_size of zero/config.py."""
PREFETCH_ELEMENTS = 50_000_000
"""Parameters that stage 3 gathers ahead: stage3_prefetch_bucket_size of zero/config.py."""
CONTEXT = round(0.8 * GIB)
"""CUDA context, cuBLAS and cuDNN of a rank. An estimate: 0.5 to 1 GiB, by card and driver."""


@dataclass(frozen=True, slots=True)
class Training:
    """A run's learner, as far as its memory is concerned."""

    run: RunConfig
    shape: ModelShape
    teachers: tuple[ModelShape, ...] = ()
    trainable: int | None = None
    """Parameters that get a gradient; None: all, or the factors of learner.lora."""

    @property
    def trained(self) -> int:
        """T."""
        if self.trainable is not None:
            return self.trainable
        shape, lora = self.shape, self.run.learner.lora
        return trainable_parameters(lora, shape.parameters, shape.linear_layers, path=shape.name)

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return self.run.learner.zero_stage

    @property
    def ranks(self) -> int:
        """R."""
        return self.run.learner.ranks

    @property
    def width(self) -> int:
        """b."""
        return dtype_bytes(self.run)

    @property
    def is_float32(self) -> bool:
        """Whether the model itself is in float32."""
        return self.width == FLOAT32

    @property
    def share(self) -> int:
        """Parameters that this rank steps: T / R, all of them at stage 0."""
        return -(-self.trained // self.ranks) if self.stage > 0 else self.trained


def parts(training: Training, *, is_first: bool) -> tuple[Part, ...]:
    """Everything on the device of one rank. is_first: whether it is rank 0, which sends the weights."""
    return tuple(
        part
        for part in (
            weights(training),
            master(training),
            adam(training),
            adam_temporary(training),
            *gradients(training),
            reduction(training),
            exact_baseline(training),
            gathered(training),
            *reference(training),
            *teachers(training),
            *forward(training),
            *(snapshot(training) if is_first else ()),
            *libraries(training),
        )
        if part.size_bytes
    )


# Weights and states


def weights(training: Training) -> Part:
    """b N, and b N / R at stage 3."""
    held = training.shape.parameters // (training.ranks if training.stage == 3 else 1)
    return Part("weights", training.width * held)


def gathered(training: Training) -> Part:
    """At stage 3 the layer, embedding or head at work, whole, and what is gathered ahead of it."""
    if training.stage != 3 or training.ranks == 1:
        return Part("gathered layers", 0)
    largest = max(training.shape.layer_parameters, training.shape.embedding)
    ahead = min(PREFETCH_ELEMENTS, training.shape.parameters - largest)
    return Part("gathered layers", training.width * (largest + ahead), ("scoring", "backward"))


def master(training: Training) -> Part:
    """4 T / R from stage 1 on: the copy that Adam steps, for a float32 model too. At stage 0 Adam steps the weights."""
    return Part("float32 master", FLOAT32 * training.share if training.stage > 0 else 0)


def adam(training: Training) -> Part:
    """8 T / R: two averages in float32, made by the first step."""
    return Part("Adam's averages", 2 * FLOAT32 * training.share)


def adam_temporary(training: Training) -> Part:
    """What torch's AdamW makes of the second average while it steps.

    On a GPU nothing: it is one kernel. On a CPU it goes over one tensor after the other, with a square root and its quotient: 8
    bytes for each element of the largest. From stage 1 on, T / R is one flat tensor; stage 3 cuts it into groups of
    SUB_GROUP_ELEMENTS.
    """
    if training.run.device == "cuda":
        return Part("AdamW's temporary", 0)
    elements = min(SUB_GROUP_ELEMENTS, training.share) if training.stage == 3 else training.share
    if training.stage == 0:
        elements = min(elements, max(training.shape.embedding, training.shape.hidden * training.shape.intermediate))
    return Part("AdamW's temporary", 2 * FLOAT32 * elements, ("step",))


# Gradients


def gradients(training: Training) -> tuple[Part, ...]:
    """Gradients as they are added up over micro-batches, and as they are stepped with.

    Stage 0: 4 T, in float32. Stage 1 in float32: 4 T until they are reduced, then this rank's 4 T / R. Stage 1 in bfloat16
    (BF16_Optimizer): always their sum in float32, 4 T, whole on every rank, into which each goes at once. Stage 2: 4 T / R, in
    float32. Stage 3: the same, always, with DeepSpeed's buffer for those that are reduced; and a flat copy of a group of them at
    the step.
    """
    whole, share = training.trained, training.share
    if training.stage == 0:
        return (Part("gradients", FLOAT32 * whole, ("backward", "reduction", "step")),)
    if training.stage == 1 and training.is_float32:
        return (
            Part("gradients", FLOAT32 * whole, ("backward", "reduction")),
            Part("gradients of this rank", FLOAT32 * share, ("step",)),
        )
    if training.stage == 1:
        return (
            Part(
                "the largest gradient in bfloat16", training.width * min(whole, training.shape.embedding), ("backward",)
            ),
            Part("gradients in float32", FLOAT32 * whole),
        )
    if training.stage == 2:
        return (Part("gradients of this rank", FLOAT32 * share, ("backward", "step")),)
    copied = min(SUB_GROUP_ELEMENTS, share)
    return (
        Part("gradients of this rank", FLOAT32 * share),
        Part("gradients to reduce", reduction_buffer_bytes(training)),
        Part("gradients being stepped with", FLOAT32 * copied, ("step",)),
    )


def reduction_buffer_bytes(training: Training) -> int:
    """DeepSpeed's buffer for gradients on their way to their rank: REDUCE_ELEMENTS, of which a CPU gives only the pages that
    are written."""
    filled = min(REDUCE_ELEMENTS, training.trained)
    return training.width * (REDUCE_ELEMENTS if training.run.device == "cuda" else filled)


def reduction(training: Training) -> Part:
    """The buffer above, and the copies that are sent. Stages 0 and 1 reduce once, before the step; 2 and 3 in each backward, in
    portions of REDUCE_ELEMENTS."""
    filled = min(REDUCE_ELEMENTS, training.trained)
    buffer = reduction_buffer_bytes(training)
    sent = training.width * filled
    if training.stage == 0:
        return Part("gradients being reduced", FLOAT32 * filled, ("reduction",))
    if training.stage == 1 and training.is_float32:
        return Part("gradients being reduced", buffer + sent, ("reduction",))
    if training.stage == 1:
        return Part("gradients being reduced", FLOAT32 * training.trained, ("reduction",))
    if training.stage == 2:
        return Part("gradients being reduced", buffer + sent, ("backward",))
    # Stage 3 keeps its buffer: `gradients` has it.
    return Part("gradients being reduced", sent + FLOAT32 * (filled // training.ranks), ("backward",))


def exact_baseline(training: Training) -> Part:
    """advantage.baseline = "minimum_variance_exact": two sums of whole gradients (learner/step/exact.py), in float32."""
    exact = training.run.learner.advantage.baseline == "minimum_variance_exact"
    return Part("two gradient sums", 2 * FLOAT32 * training.trained if exact else 0, ("backward",))


# Other policies


def reference(training: Training) -> tuple[Part, ...]:
    """The copies of this rank's part of what is trained, where they are not offloaded; and on the way into the model, one
    more in its dtype where the copy is elsewhere or in another dtype (learner/engine/reference_weights.py)."""
    settings = training.run.learner.reference
    held = training.trained // (training.ranks if training.stage == 3 else 1)
    copies, kept = reference_copies(training.run), reference_dtype_bytes(training.run)
    moved = (settings.offload and training.run.device == "cuda") or kept != training.width
    on_device = not settings.offload or training.run.device == "cpu"
    return (
        Part("reference", copies * kept * held if on_device else 0),
        Part("reference, as it scores", training.width * held if moved else 0, ("scoring",)),
    )


def teachers(training: Training) -> tuple[Part, ...]:
    """Every teacher whole on every rank, in its own dtype."""
    return tuple(
        Part(f"teacher {number}", shape.parameters * (FLOAT32 if settings.dtype == "float32" else 2))
        for number, (shape, settings) in enumerate(zip(training.teachers, training.run.learner.teachers, strict=True))
    )


# Forward and backward


def forward(training: Training) -> tuple[Part, ...]:
    """Activations of a micro-batch of whole rows, and the head, whose response tokens are at most all of them. The
    backward goes through the head first, and then through one layer after the other."""
    settings, shape, width = training.run.learner, training.shape, training.width
    rows, row_tokens = settings.rows_per_micro_batch, settings.row_tokens
    tokens = rows * row_tokens
    again, gpu = settings.gradient_checkpointing, training.run.device == "cuda"
    chunk = settings.head_chunk_tokens or chunk_tokens(shape.vocabulary, training.run.device)
    kept = activations.kept_row_bytes(shape, width, checkpointing=again)
    at_work = activations.layer_at_work_bytes(shape, width, checkpointing=again)
    head = activations.head_bytes(shape, tokens, chunk, width, gpu=gpu)
    return (
        Part("activations", tokens * kept, ("backward",)),
        Part("one layer", tokens * activations.forward_bytes(shape, width), ("scoring",)),
        Part("head, or the layer at work", max(head, tokens * at_work), ("backward",)),
        Part("head, scoring", activations.head_scoring_bytes(shape, tokens, chunk, width, gpu=gpu), ("scoring",)),
    )


def snapshot(training: Training) -> tuple[Part, ...]:
    """The buckets that versions are copied into, which are kept, a second set of them for the version that comes while the last
    one still travels, a third while a replica fetches an older one by itself, and what weights.delta takes. Over NCCL they lie on
    the GPU of rank 0, where a version that is fetched is copied to host memory (plan.py); over gloo and HTTP in host memory."""
    if training.run.device == "cuda" and training.run.weights.type != "nccl":
        return ()
    size = bucket_bytes(training.shape, training.run)
    return (
        Part("buckets of the version sent", size),
        Part("buckets of the next version", size, ("snapshot",)),
        *delta_parts(training.shape, training.run),
        *([Part(FETCHED, size)] if training.run.weights.type != "nccl" else []),
    )


def libraries(training: Training) -> tuple[Part, ...]:
    """What CUDA and NCCL take for themselves: one communicator among the ranks, one with the replicas."""
    if training.run.device == "cpu":
        return ()
    groups = (training.ranks > 1) + (training.run.weights.type == "nccl")
    return (
        Part("CUDA context", CONTEXT, estimated=True),
        Part("NCCL buffers", groups * COLLECTIVE_BUFFERS, estimated=True),
    )
