"""What a sampling replica holds: on each of its GPUs, or in host memory on a CPU."""

from services.config import RunConfig
from services.config.rollout import CPU_CACHE_GIB, GPU_FRACTION, GPU_STEP_TOKENS
from services.plan.parts import GIB, Part
from services.plan.shape import ModelShape

BATCHED_TOKENS = 2048
"""Tokens of one engine step on a CPU: vLLM 0.32's default (SchedulerConfig.DEFAULT_MAX_NUM_BATCHED_TOKENS)."""
ENGINE_CONTEXT = round(0.8 * GIB)
"""CUDA context and libraries of an engine's process. An estimate: 0.5 to 1 GiB, by card and driver."""
GRAPHS = round(1.0 * GIB)
"""CUDA graphs of an engine with enforce_eager = false. An estimate; vLLM measures it and takes it from the KV cache."""
COLLECTIVE_BUFFERS = round(0.3 * GIB)
"""What NCCL keeps for one communicator. An estimate: 0.1 to 0.3 GiB."""


def replicas_on(run: RunConfig, gpus: int) -> int:
    """Replicas that `ratchet up` chooses on this many GPUs: as many as fit on those that the learner leaves. A fixed port for
    metrics is that of one replica."""
    if run.rollout.metrics_port != 0:
        return 1
    return max(1, (gpus - run.learner.ranks) // run.rollout.tensor_parallel)


def weights(shape: ModelShape, run: RunConfig) -> Part:
    """One worker's share of the weights: layers and vocabulary are split over rollout.tensor_parallel workers."""
    return Part("weights", shape.parameters * dtype_bytes(run) // run.rollout.tensor_parallel)


def staging_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of the buffers that every worker receives the next weights into, and keeps for the ones after: the whole model in
    the dtype of the wire, whatever tensor_parallel is (rollout/weights/receiver.py)."""
    return shape.parameters * dtype_bytes(run)


def second_model_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of the model that a worker prepares the next weights in (rollout/vllm/second_model.py); 0 without one."""
    return weights(shape, run).size_bytes if run.rollout.prepare_weights else 0


def token_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of KV cache of one token in one worker: keys and values of every layer. A head is not divided: with more workers
    than heads each holds one."""
    heads = max(1, shape.kv_heads // run.rollout.tensor_parallel)
    return 2 * shape.layers * heads * shape.head_dim * dtype_bytes(run)


def step_bytes(shape: ModelShape, run: RunConfig) -> int:
    """Bytes of one engine step, which vLLM measures before it sizes the KV cache.

    The MLP of rollout.max_num_batched_tokens tokens (gate and up, and their product), and logits of one token of each
    sequence: in the model's dtype, in float32, and their log-softmax.
    """
    sequences, workers = run.rollout.max_concurrent_sequences + 1, run.rollout.tensor_parallel
    default = BATCHED_TOKENS if run.device == "cpu" else max(GPU_STEP_TOKENS, sequences)
    tokens = min(run.rollout.max_num_batched_tokens or default, sequences * run.model.max_length)
    layer = tokens * (3 * shape.intermediate // workers + 4 * shape.hidden) * dtype_bytes(run)
    logits = sequences * shape.vocabulary * (dtype_bytes(run) + 4 + 4)
    return layer + logits


def kv_cache_bytes(shape: ModelShape, run: RunConfig, gpu_bytes: int | None) -> int:
    """Bytes of KV cache in one worker: kv_cache_gib where it is given or on a CPU; else what gpu_memory_fraction leaves, at
    least 0, beside the second model and, over NCCL, the staging of the next weights (rollout/vllm/memory.py)."""
    if run.device == "cpu" or run.rollout.kv_cache_gib is not None:
        return round((run.rollout.kv_cache_gib or CPU_CACHE_GIB) * GIB)
    share = round((gpu_bytes or 0) * fraction_of_gpu(run))
    staged = staging_bytes(shape, run) if run.weights.type == "nccl" else 0
    graphs = 0 if run.engine_is_eager else GRAPHS
    models = weights(shape, run).size_bytes + second_model_bytes(shape, run)
    return max(0, share - staged - models - step_bytes(shape, run) - graphs - ENGINE_CONTEXT)


def fraction_of_gpu(run: RunConfig) -> float:
    """rollout.gpu_memory_fraction, or its default."""
    return run.rollout.gpu_memory_fraction or GPU_FRACTION


def sequences_that_fit(shape: ModelShape, run: RunConfig, gpu_bytes: int | None, tokens: int) -> int:
    """How many sequences of this many tokens the KV cache of a replica holds at once."""
    return kv_cache_bytes(shape, run, gpu_bytes) // (token_bytes(shape, run) * tokens)


def parts(shape: ModelShape, run: RunConfig, gpu_bytes: int | None) -> tuple[Part, ...]:
    """What one worker holds on its device. On a GPU the KV cache is what is left of gpu_memory_fraction."""
    on_device = run.device == "cpu" or run.weights.type == "nccl"
    held = [
        weights(shape, run),
        Part("KV cache", kv_cache_bytes(shape, run, gpu_bytes)),
        Part("one engine step, logits included", step_bytes(shape, run), estimated=True),
    ]
    if run.rollout.prepare_weights:
        held.append(Part("second model, for the next weights", second_model_bytes(shape, run)))
    if on_device:
        held.append(Part("staging of the next weights", staging_bytes(shape, run)))
    if run.device == "cuda":
        held.append(Part("CUDA context", ENGINE_CONTEXT, estimated=True))
        if not run.engine_is_eager:
            held.append(Part("CUDA graphs", GRAPHS, estimated=True))
        if run.weights.type == "nccl":
            held.append(Part("NCCL buffers", COLLECTIVE_BUFFERS, estimated=True))
    return tuple(held)


def dtype_bytes(run: RunConfig) -> int:
    return 4 if run.model.dtype == "float32" else 2
