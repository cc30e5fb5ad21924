"""A second model beside the one that samples: a version is renamed, fused and prepacked in it, and exchanged in a pause.

vLLM puts weights into a running model by a reload, which takes a second a GiB while nobody samples. Here a thread does that
to a model that nobody runs, and the pause only exchanges what both hold (pairing.py): pointers in host memory; on a GPU bytes,
since CUDA graphs know the addresses. What sampled before the exchange is what the next version is prepared in.

    prepare v0 ──▶ reload v0 ──▶ prepare v1 ──▶ exchange ──▶ prepare v2 ──▶ exchange ──▶ ...
                                 proves that v0 came out the same in both, bit by bit

A model at which anything differs is not exchanged (CannotExchange); its replica reloads in the pause, as without this.
"""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rollout.vllm.pairing import CannotExchange, Pair, match

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class SecondModel:
    """Made and exchanged in the engine's thread, between two steps; prepared in another, while the engine samples."""

    def __init__(self, settings: "VllmConfig", running: torch.nn.Module, device: torch.device) -> None:
        """Take memory for a second model. settings: of the engine. running: the model that samples."""
        from vllm.model_executor.model_loader.utils import initialize_model
        from vllm.utils.torch_utils import set_default_torch_dtype

        self._settings = settings
        self._running = running
        self._device = device
        with set_default_torch_dtype(cast(torch.dtype, settings.model_config.dtype)), device:
            self._prepared: Any = initialize_model(_of_its_own(settings)).eval()
        _share_no_module(self._prepared, running)
        self._is_loaded = False
        self._holds_what_runs = False
        self._is_proven = False
        self._names: frozenset[str] = frozenset()
        self._pairs: list[Pair] = []

    def prepare(self, weights: Iterator[tuple[str, Tensor]]) -> bool:
        """Load a version under its Hugging Face names. Returns whether it can be exchanged; the first has to be reloaded.

        Raises CannotExchange where this model's weights cannot be exchanged, and what vLLM raises; then nothing more is
        to be done with it.
        """
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload.inplace import reload_weights
        from vllm.model_executor.model_loader.utils import process_weights_after_loading

        self._pairs = []
        if self._holds_what_runs and not self._is_proven:
            self._prove()
        self._holds_what_runs = False
        names: set[str] = set()
        weights = _noted(weights, names)
        with set_current_vllm_config(self._settings), torch.no_grad():
            if self._is_loaded:
                before_reload(self._prepared)
                reload_weights(self._settings, self._prepared, weights, None, is_checkpoint_format=True)
                after_reload(self._prepared)
            else:
                self._prepared.load_weights(weights)
                process_weights_after_loading(self._prepared, self._settings.model_config, self._device)
                self._is_loaded = True
                self._names = frozenset(names)
        if names != self._names:  # what is not loaded is that of the version before the last
            raise CannotExchange(f"a version has other weights: {sorted(names ^ self._names)[:3]}")
        if self._is_proven:
            self._pairs = match(self._running, self._prepared)
        return self._is_proven

    def exchange(self) -> None:
        """Have the running model hold the version that was prepared, which `prepare` said can be exchanged."""
        assert self._pairs, "prepare comes first"
        for pair in self._pairs:
            if self._device.type == "cpu":
                pair.exchange()
            else:
                pair.copy()
        self._pairs = []

    def was_reloaded(self) -> None:
        """Say that the version which was prepared last has been reloaded into the running model."""
        self._holds_what_runs = True

    def _prove(self) -> None:
        """Compare both models, which hold one version: what preparing it makes has to be what reloading it does."""
        for pair in match(self._running, self._prepared):
            if not pair.is_equal():
                raise CannotExchange(f"{pair.place} came out otherwise than by a reload")
        self._is_proven = True


def _noted(weights: Iterator[tuple[str, Tensor]], names: set[str]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights:
        names.add(name)
        yield name, weight


def before_reload(model: torch.nn.Module) -> None:
    """Have vLLM pack the weights of experts again: for its CPU kernels it does only where there is no such kernel yet, which is
    at the first load, and a reload would copy them unpacked into what is packed."""
    from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(method := getattr(module, "quant_method", None), FusedMoEMethodBase):
            method.moe_kernel = None


def after_reload(model: torch.nn.Module) -> None:
    """Renew the prepacked copy of lm_head that vLLM keeps on CPU: tied to the embedding, it is not among what was loaded."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _of_its_own(settings: "VllmConfig") -> "VllmConfig":
    """The engine's settings, without the registers in which the layers of the running model are."""
    own = copy.copy(settings)
    own.compilation_config = copy.copy(settings.compilation_config)
    own.compilation_config.static_forward_context = {}
    own.compilation_config.static_all_moe_layers = []
    return own


def _share_no_module(model: torch.nn.Module, running: torch.nn.Module) -> None:
    """Give the model its own copies of modules that vLLM hands out twice, such as rotary tables: a reload takes modules apart."""
    from vllm.model_executor.model_loader.reload import record_metadata_for_reloading

    used = {id(module) for module in running.modules()}
    copies: dict[int, Any] = {}
    for module in list(model.modules()):
        for name, child in module.named_children():
            if id(child) in used:
                if id(child) not in copies:
                    copies[id(child)] = copy.deepcopy(child)
                    record_metadata_for_reloading(copies[id(child)])
                setattr(module, name, copies[id(child)])
