"""[rollout]: the engine that samples, and how much it takes on at once."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Host, Strict
from services.config.chosen import Chosen, settled
from services.config.effect import OnlyWith

GPU_FRACTION = 0.85
"""gpu_memory_fraction by default."""
CPU_CACHE_GIB = 1.0
"""kv_cache_gib by default on CPU."""
SHARED_CACHE_GIB = 4.0
"""kv_cache_gib by default on a GPU that learner and replicas share."""
GPU_STEP_TOKENS = 8192
"""max_num_batched_tokens by default on GPU. vLLM's own, the way that it is started here, is 2048."""


class SamplingConfig(Strict):
    """How responses are drawn. There is no top_p or top_k: a truncated distribution would bias every importance ratio."""

    max_tokens: int = Field(ge=1)
    """Most tokens of a response. It has to leave room for a prompt within model.max_length."""
    group_size: int = Field(default=8, ge=2)
    """Responses sampled for each prompt. Larger groups give better baselines, and more often one correct response to a
    hard problem."""
    temperature: float = Field(default=1.0, ge=0.01, le=2.0)
    """Sampling temperature of training responses, from 0.01 to 2, which is what the engine samples at unchanged. The learner
    divides logits by it too, so any value is unbiased."""
    stop_token_ids: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """Token ids that end a response, in addition to the model's own end-of-sequence tokens; none by default."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Texts that end a response, such as ["</answer>"]; none by default. The text stays in the response: it is trained on,
    and the grader reads it."""
    keep_special_tokens: bool = False
    """Whether the grader reads tokens that the tokenizer calls special, such as <think> of some models. The token that ended
    the response is left out in either case."""


class RolloutConfig(Strict):
    """The replicas that sample: one inference engine each."""

    sampling: SamplingConfig
    """How responses are drawn."""
    replicas: Chosen = "auto"
    """Replicas that `ratchet up` starts. auto: as many as the GPUs have room for beside the learner; on CPU one for each four
    cores that are left for sampling (docs/deploying.md). Under Compose or Kubernetes the number of containers decides."""
    max_concurrent_sequences: int = Field(default=256, ge=1)
    """Sequences that one engine samples at the same time. Lower it if the engine preempts for lack of KV cache; it has to
    hold at least one group."""
    kv_cache_gib: float | None = Field(default=None, gt=0.0)
    """GiB of KV cache of an engine, on each of its GPUs. Default: on CPU 1; on a GPU of its own what gpu_memory_fraction leaves,
    and 4 on a GPU that it shares with the learner, where a size of its own keeps what the learner allocates out of it."""
    gpu_memory_fraction: Annotated[float | None, OnlyWith("device", "cuda")] = Field(default=None, gt=0.0, le=1.0)
    """Fraction of a GPU's memory that a replica takes: the engine with its weights and, with weights.type = "nccl", a copy of
    the weights that the next version is received into; without kv_cache_gib alone. Default: 0.85. Lower it if something else
    runs on that GPU."""
    cpu_threads: Annotated[Chosen, OnlyWith("device", "cpu")] = "auto"
    """Compute threads of an engine on CPU. auto: its share of the cores that are left for sampling where `ratchet up` starts it,
    and 1 where it is started alone."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one replica spreads the model over. Raise it when the model does not fit on one GPU."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the engine computes in one step, prompts included: more of them fill the cache sooner, and take more memory.
    At least max_concurrent_sequences + 1. Default: 8192 on GPU, and what vLLM takes on CPU."""
    engine_process: Literal["auto", "own", "shared"] = "auto"
    """Whether the engine runs in a process of its own or shares that of its replica. auto: shared on CPU, where nothing is then
    sent from process to process and vLLM is imported once; a process of its own on GPU, where its Python and the replica's would
    take turns, and with tensor_parallel above 1. Which is faster on a GPU was not measured."""
    enforce_eager: bool | None = None
    """Whether the engine runs without CUDA graphs and compilation. Default: on CPU it does, on GPU it does not, which samples
    small models several times faster and starts a minute or two later. Set it to true if capturing graphs fails."""
    kv_after_swap: Literal["keep", "recompute"] = "keep"
    """What happens to requests in flight when weights change: keep their KV cache, or prefill them again under the new
    weights. recompute removes the mismatch of the old cache and costs a prefill of every running request per swap."""
    prepare_weights: bool = True
    """Whether an engine holds a second model, in which the next weights are prepared while it samples: sampling then stands
    still for milliseconds at a swap, not for a second a GiB. Set it to false to save that memory."""
    metrics_host: Host = "127.0.0.1"
    """Address that /healthz, /readyz and /metrics of a replica listen on; "0.0.0.0" for all interfaces."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of /healthz, /readyz and /metrics. 0 takes any free port, recorded in the run folder. With several replicas on
    one machine it has to be 0."""

    @property
    def replica_count(self) -> int:
        """rollout.replicas; 1 where nobody has chosen a number yet."""
        return settled(self.replicas)

    @property
    def engine_threads(self) -> int:
        """rollout.cpu_threads; 1 where nobody has chosen a number yet."""
        return settled(self.cpu_threads)

    @model_validator(mode="after")
    def one_setting_sizes_the_cache(self) -> Self:
        if self.kv_cache_gib is not None and self.gpu_memory_fraction is not None:
            raise ValueError(
                f"rollout.kv_cache_gib = {self.kv_cache_gib} and rollout.gpu_memory_fraction = {self.gpu_memory_fraction} both "
                "size the engine's KV cache; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def a_shared_process_has_one_worker(self) -> Self:
        if self.engine_process == "shared" and self.tensor_parallel > 1:
            raise ValueError(
                f'rollout.engine_process = "shared" is for one GPU, and rollout.tensor_parallel = {self.tensor_parallel}; '
                'set the first to "own" or "auto", or the second to 1'
            )
        return self

    @model_validator(mode="after")
    def a_step_holds_every_sequence(self) -> Self:
        least = self.max_concurrent_sequences + 1  # the probe is a sequence, too
        if self.max_num_batched_tokens is not None and self.max_num_batched_tokens < least:
            raise ValueError(
                f"rollout.max_num_batched_tokens = {self.max_num_batched_tokens} is less than a token for each of "
                f"rollout.max_concurrent_sequences + 1 = {least}; raise the first or lower the second"
            )
        return self
