"""The half of the vLLM adapter that lives inside the engine's worker processes.

vLLM mixes `StagedWeights` into its own worker class (`worker_extension_cls`), and `VllmEngine` in the rollout process
calls its methods through vLLM's collective_rpc. What crosses between the two is bytes, numbers and strings.
"""

import logging
from typing import Any, Literal, cast

import torch

from rollout.vllm.second_model import SecondModel, after_reload, before_reload
from rollout.weights.receiver import Named, WeightReceiver, out_of_memory
from services.errors import WeightSyncError
from services.wire.codec import decode
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

Swapped = tuple[Literal["exchange", "reload", "refused"], str]
"""How a version was swapped in, and what the log has to say: why weights are reloaded in a pause from now on, or, refused,
what to do about memory."""


class StagedWeights:
    """The replica's end of the weight channel in one worker. vLLM calls each method between two engine steps."""

    _receiver: WeightReceiver | None = None
    _second: SecondModel | None = None
    _unsaid = ""
    rank: int
    """This worker's rank within the engine; set by vLLM, as are the next three."""
    device: torch.device
    model_runner: Any
    vllm_config: Any

    def join_generation(self, rendezvous: bytes, first_rank: int, prepare: bool) -> None:
        """Begin to join a generation; `weights_progress` says when it has formed.

        first_rank: that of worker 0. prepare: rollout.prepare_weights; the first call of this or of `stage_weights` decides.
        """
        self._receiving(prepare).join(decode(rendezvous, Rendezvous), first_rank + self.rank)

    def _receiving(self, prepare: bool) -> WeightReceiver:
        """The receiver, from its first use on."""
        if self._receiver is None:
            self._receiver = WeightReceiver(self.device, prepare=self._prepare if prepare else None)
            # At every swap it would name the layers without weights of their own: rotary tables, a tied lm_head.
            logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
            if prepare:
                self._make_second()
        return self._receiver

    def _make_second(self) -> None:
        try:
            self._second = SecondModel(self.vllm_config, self.model_runner.get_model(), self.device)
        except Exception as fault:  # whatever vLLM says: the engine can reload
            self._give_up_second(fault)

    def _prepare(self, weights: Named) -> bool:
        """Prepare a version, in the receiver's thread; False if it has to be reloaded in the pause."""
        if self._second is None:
            return False
        try:
            return self._second.prepare(weights)
        except Exception as fault:  # whatever vLLM says: the engine can reload
            self._give_up_second(fault)
            return False

    def _give_up_second(self, fault: Exception) -> None:
        self._second = None
        said = str(fault).splitlines() or [""]
        self._unsaid = f"{type(fault).__name__}: {said[0]}"

    def stage_weights(self, manifest: bytes, timeout_s: float, prepare: bool, offer: bytes | None = None) -> str | None:
        """Begin to receive a version, or to fetch it from where the offer says. Returns why it could not begin, or None.

        The reason is returned because an exception would reach the other process without its class.
        """
        try:
            if self._receiver is None and offer is None:
                raise WeightSyncError("no generation was joined; join first")
            place = decode(offer, WeightOffer) if offer else None
            self._receiving(prepare).stage(decode(manifest, WeightManifest), timeout_s, place)
        except WeightSyncError as refusal:
            return str(refusal)
        return None

    def weights_progress(self) -> tuple[str, str]:
        """State of the last join or transfer, and what went wrong with it (TransferProgress)."""
        assert self._receiver is not None, "join_generation comes first"
        progress = self._receiver.progress()
        return progress.state, progress.fault

    def swap_weights(self, policy_version: int) -> Swapped:
        """Put the staged version into the model. Sampling is paused. Returns how; refused: there was no memory for it.

        The model is then half of one version and half of another.

        A reload is vLLM's whole life cycle in one call: a bare load_weights corrupts some models, and half a reload
        kills the engine.
        """
        assert self._receiver is not None, "join_generation comes first"
        staged = self._receiver.take(policy_version)
        how: Literal["exchange", "reload"] = "reload"
        if staged.is_prepared and self._second is not None:
            self._second.exchange()
            how = "exchange"
        else:
            try:
                before_reload(self.model_runner.get_model())
                cast(Any, self).reload_weights(weights_iterator=staged.named(), is_checkpoint_format=True)
                after_reload(self.model_runner.get_model())
            except torch.OutOfMemoryError as fault:
                return "refused", out_of_memory(fault, "what the swap of weights needs beside them")
            if self._second is not None:
                self._second.was_reloaded()
        self._receiver.give_back()
        unsaid = self._unsaid
        self._unsaid = ""
        return how, unsaid
