"""What one host holds in memory and on disk besides its devices: copies on their way, processes, streams, checkpoints."""

from services.config import RunConfig
from services.plan.parts import GIB, Part
from services.plan.replica import dtype_bytes, staging_bytes
from services.plan.shape import ModelShape

LEARNER_PROCESS = round(1.0 * GIB)
"""A learner rank without its model: Python, torch, transformers and DeepSpeed. An estimate: 0.7 GiB on a CPU, more with CUDA."""
ENGINE_PROCESS = round(1.5 * GIB)
"""A replica without its model: vLLM and its worker. An estimate: 1.2 GiB on a CPU, more with CUDA."""
GRADER_PROCESS = round(0.15 * GIB)
"""A grader process that has loaded its libraries; verifier.process_memory_mib is what it may take. An estimate."""
TEXT_BYTES_PER_TOKEN = 4
"""Text of a response that travels with its tokens. An estimate, of English and mathematics."""
WIRE_BYTES_PER_TOKEN = 4 + 4 + TEXT_BYTES_PER_TOKEN
"""Bytes of a response token on a stream: its id, its log-prob and its text (services/wire/trajectory.py)."""


def starting_bytes(shape: ModelShape, run: RunConfig, ranks: int) -> int:
    """Bytes of host memory while the learner starts: every rank loads the whole model there before it moves; at stage 3 all
    read it from the mapped file, in one copy."""
    return (1 if run.learner.zero_stage == 3 else ranks) * shape.parameters * dtype_bytes(run)


def resuming_bytes(shape: ModelShape, run: RunConfig, trainable: int) -> int:
    """Bytes of host memory while ranks read a checkpoint, of all of them: master and averages, at stage 0 weights and averages,
    whole in memory before they are put in place."""
    weight = trainable * dtype_bytes(run) if run.learner.zero_stage == 0 else 4 * trainable
    return weight + 8 * trainable


def bucket_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of one policy version in buckets, where they are sent from: the whole model in the dtype of the wire
    (learner/publish/kept_buckets.py)."""
    return shape.parameters * dtype_bytes(run)


def group_bytes(run: RunConfig) -> int:
    """Bytes of one group on a stream, all its responses as long as they may be and the prompt filling the rest."""
    tokens = max(run.sampling_of(source).max_tokens for source in run.prompts.each)
    prompt = run.model.max_length - tokens
    return run.largest_group * tokens * WIRE_BYTES_PER_TOKEN + prompt * (4 + TEXT_BYTES_PER_TOKEN)


def groups_kept(run: RunConfig) -> int:
    """Groups on the streams at most: those outstanding (learner/intake/admission.py), and those trained on since the last
    checkpoint, which are acknowledged with the next."""
    learner = run.learner
    return (learner.max_lag + 1 + learner.checkpoint.every_steps) * learner.groups_per_step


def redis_bytes(run: RunConfig) -> int:
    """Bytes of the streams when every response is as long as it may be. Groups that were dropped and not yet acknowledged,
    which nothing bounds, come on top."""
    return groups_kept(run) * group_bytes(run)


def checkpoint_bytes(run: RunConfig, trainable: int) -> int:
    """Bytes of one checkpoint, of all ranks together.

    DeepSpeed writes what is trained in the model's dtype (not at stage 3), and from stage 1 on a float32 master; Adam's two
    averages are float32. The reference is one more copy, in the dtype that it is kept in, and the one before it another where
    swaps may be taken back.
    """
    weight = trainable * dtype_bytes(run) if run.learner.zero_stage < 3 else 0
    master = 4 * trainable if run.learner.zero_stage > 0 else 0
    return weight + master + 8 * trainable + reference_copies(run) * trainable * reference_dtype_bytes(run)


def disk_bytes(shape: ModelShape, run: RunConfig, trainable: int) -> int:
    """Bytes of the run folder: `keep` checkpoints, one more while it is written, and the export of the trained model."""
    keep = run.learner.checkpoint.keep
    return (keep + 1) * checkpoint_bytes(run, trainable) + shape.parameters * dtype_bytes(run)


def reference_copies(run: RunConfig) -> int:
    """Copies of the weights that the reference policy is kept in."""
    reference = run.learner.reference
    return 2 if reference.type == "ratchet" and reference.roll_back is not None else 1


def reference_dtype_bytes(run: RunConfig) -> int:
    """Bytes of a weight of the reference: a moving average is kept in float32."""
    if run.learner.reference.type == "ema":
        return 4
    return 2 if run.learner.reference.dtype == "bfloat16" else dtype_bytes(run)


def processes(run: RunConfig, ranks: int, replicas: int) -> tuple[Part, ...]:
    """The processes themselves."""
    graders = run.verifier.processes
    return (
        Part(f"{ranks} learner ranks, empty", ranks * LEARNER_PROCESS, estimated=True),
        Part(f"{replicas} replicas, empty", replicas * ENGINE_PROCESS, estimated=True),
        Part(f"verifier and {graders} graders", (graders + 1) * GRADER_PROCESS, estimated=True),
    )


def staged_on_host(shape: ModelShape, run: RunConfig) -> int:
    """Bytes that the replicas of one host stage in its memory: over gloo all of it, on a CPU it is counted with the replica."""
    if run.device == "cpu" or run.weights.type == "nccl":
        return 0
    return run.rollout.replicas * run.rollout.tensor_parallel * staging_bytes(shape, run)
