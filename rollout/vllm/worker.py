"""The half of the vLLM adapter that lives inside the engine's worker processes.

vLLM mixes `StagedWeights` into its own worker class (`worker_extension_cls`), and `VllmEngine` in the rollout process
calls its methods through vLLM's collective_rpc. What crosses between the two is bytes, numbers and strings.
"""

import logging
from typing import Any, cast

import torch

from rollout.weights.receiver import WeightReceiver, out_of_memory
from services.errors import WeightSyncError
from services.wire.codec import decode
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer


class StagedWeights:
    """The replica's end of the weight channel in one worker. vLLM calls each method between two engine steps."""

    _receiver: WeightReceiver | None = None
    rank: int
    """This worker's rank within the engine; set by vLLM, as are the next two."""
    device: torch.device
    model_runner: Any

    def join_generation(self, rendezvous: bytes, first_rank: int) -> None:
        """Begin to join a generation; `weights_progress` says when it has formed. first_rank: that of worker 0."""
        self._receiving().join(decode(rendezvous, Rendezvous), first_rank + self.rank)

    def _receiving(self) -> WeightReceiver:
        """The receiver, from its first use on."""
        if self._receiver is None:
            self._receiver = WeightReceiver(self.device)
            # At every swap it would name the layers without weights of their own: rotary tables, a tied lm_head.
            logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
        return self._receiver

    def stage_weights(self, manifest: bytes, timeout_s: float, offer: bytes | None = None) -> str | None:
        """Begin to receive a version, or to fetch it from where the offer says. Returns why it could not begin, or None.

        The reason is returned because an exception would reach the other process without its class.
        """
        try:
            if self._receiver is None and offer is None:
                raise WeightSyncError("no generation was joined; join first")
            place = decode(offer, WeightOffer) if offer else None
            self._receiving().stage(decode(manifest, WeightManifest), timeout_s, place)
        except WeightSyncError as refusal:
            return str(refusal)
        return None

    def weights_progress(self) -> tuple[str, str]:
        """State of the last join or transfer, and what went wrong with it (TransferProgress)."""
        assert self._receiver is not None, "join_generation comes first"
        progress = self._receiver.progress()
        return progress.state, progress.fault

    def swap_weights(self, policy_version: int) -> str | None:
        """Put the staged version into the model. Sampling is paused. Returns what to do if there is no memory for it, or None.

        The model is then half of one version and half of another.

        It is vLLM's whole reload life cycle in one call: a bare load_weights corrupts some models, and half a reload
        kills the engine.
        """
        assert self._receiver is not None, "join_generation comes first"
        weights = self._receiver.take(policy_version)
        try:
            _let_experts_be_packed_again(self.model_runner.get_model())
            cast(Any, self).reload_weights(weights_iterator=weights, is_checkpoint_format=True)
            _repack_output_layer(self.model_runner.get_model())
        except torch.OutOfMemoryError as fault:
            return out_of_memory(fault, "what the swap of weights needs beside them")
        self._receiver.give_back()
        return None


def _let_experts_be_packed_again(model: torch.nn.Module) -> None:
    """vLLM packs the weights of experts for its CPU kernels only where there is no such kernel yet, which is at the first load:
    a reload would copy them unpacked into what is packed."""
    from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(method := getattr(module, "quant_method", None), FusedMoEMethodBase):
            method.moe_kernel = None


def _repack_output_layer(model: torch.nn.Module) -> None:
    """Renew the prepacked copy of lm_head that vLLM keeps on CPU: tied to the embedding, it is not among what was loaded."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)
