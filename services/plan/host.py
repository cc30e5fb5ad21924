"""What one host holds in memory and on disk besides its devices: copies on their way, processes, streams, checkpoints."""

from services.config import RunConfig
from services.plan.parts import GIB, Part
from services.plan.replica import dtype_bytes, staging_bytes
from services.plan.shape import ModelShape
from services.wire.weights import WORTH_RATIO

LEARNER_PROCESS = round(1.0 * GIB)
"""A learner rank without its model: Python, torch, transformers and DeepSpeed. An estimate: 0.7 GiB on a CPU, more with CUDA."""
ENGINE_PROCESS = round(1.5 * GIB)
"""A replica without its model: vLLM and its worker. An estimate: 1.2 GiB on a CPU, more with CUDA."""
GRADER_PROCESS = round(0.15 * GIB)
"""A grader process that has loaded its libraries; verifier.process_memory_mib is what it may take. An estimate."""
FETCHED = "a version that a replica fetches by itself"
"""A replica that was late or has just joined; the set of buckets is kept from then on."""
TEXT_BYTES_PER_TOKEN = 4
"""Text of a response that travels with its tokens. An estimate, of English and mathematics."""
WIRE_BYTES_PER_TOKEN = 4 + 4 + TEXT_BYTES_PER_TOKEN
"""Bytes of a response token on a stream: its id, its log-prob and its text (services/wire/trajectory.py)."""


def starting_bytes(shape: ModelShape, run: RunConfig, ranks: int) -> int:
    """Bytes of host memory while the learner starts: every rank loads the whole model there before it moves; at stage 3 all
    read it from the mapped file, in one copy."""
    return (1 if run.learner.zero_stage == 3 else ranks) * shape.parameters * dtype_bytes(run)


def written_bytes(run: RunConfig, trainable: int) -> int:
    """Bytes of host memory for checkpoints, of all ranks: the copy that is written while steps go on, which is kept from one to
    the next (learner/engine/part_writer.py). Nothing where they are written at once; and reading one takes nothing, because
    files are mapped."""
    return checkpoint_bytes(run, trainable) if run.learner.checkpoint.background else 0


def bucket_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of one policy version in buckets, where they are sent from: the whole model in the dtype of the wire
    (learner/publish/kept_buckets.py)."""
    return shape.parameters * dtype_bytes(run)


def delta_parts(shape: ModelShape, run: RunConfig) -> tuple[Part, ...]:
    """What weights.delta takes where the buckets are: the version that the next is compared with, and what has changed in the
    last two, each of which may be fetched (learner/publish/changes.py)."""
    if not run.weights.delta:
        return ()
    size = bucket_bytes(shape, run)
    changed = Part("what changed in two versions, at most", round(2 * WORTH_RATIO * size))
    return Part("buckets of the version proved last", size), changed


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

    Every element once at every stage (learner/engine/engine_state.py): its float32 weight and Adam's two averages; and the
    reference, in the dtype that it is kept in, with the one before it where swaps may be taken back.
    """
    return 12 * trainable + reference_copies(run) * trainable * reference_dtype_bytes(run)


def disk_bytes(shape: ModelShape, run: RunConfig, trainable: int) -> int:
    """Bytes of the run folder: the checkpoints that are kept, one more while it is written, and the export of the trained
    model."""
    kept = run.learner.checkpoint.kept
    return (kept + 1) * checkpoint_bytes(run, trainable) + shape.parameters * dtype_bytes(run)


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
    graders = run.verifier.grader_processes
    return (
        Part(f"{ranks} learner ranks, empty", ranks * LEARNER_PROCESS, estimated=True),
        Part(f"{replicas} replicas, empty", replicas * ENGINE_PROCESS, estimated=True),
        Part(f"verifier and {graders} graders", (graders + 1) * GRADER_PROCESS, estimated=True),
    )


def staged_on_host(shape: ModelShape, run: RunConfig) -> int:
    """Bytes that the replicas of one host stage in its memory: over gloo all of it, on a CPU it is counted with the replica."""
    if run.device == "cpu" or run.weights.type == "nccl":
        return 0
    return run.rollout.replica_count * run.rollout.tensor_parallel * staging_bytes(shape, run)
