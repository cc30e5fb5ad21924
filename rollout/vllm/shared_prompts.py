"""The samples of a group share what the engine has computed of their prompt, to the last token.

vLLM finds again only whole blocks of its cache, and on a CPU a block has 32 tokens or more: eight samples of a short prompt would
read it eight times. Here the first of them reads it; the others wait for the next step, get a copy of the block in which it ends,
and read its last token alone, which gives their first log-probs.

It is a connector, vLLM's interface to caches besides its own; one object stands in the scheduler, another in the worker.
"""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import RequestStatus

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

# It warns of its interface's being experimental, each time; this project takes exactly one release of vLLM.
logging.getLogger("vllm.distributed.kv_transfer.kv_connector.v1.base").setLevel(logging.ERROR)

Key = tuple[str | None, tuple[int, ...]]
"""What tells the weights of a request apart, and its prompt."""


@dataclass
class Copies(KVConnectorMetadata):
    """What to copy before the next forward: blocks of the cache, each onto another."""

    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)


@dataclass
class Reader:
    """Who reads a prompt for others."""

    request: "Request"
    blocks: list[int]
    """Those of the cache that hold the prompt, in its order; empty until the request is scheduled."""


class SharedPrompts(KVConnectorBase_V1, SupportsHMA):
    """See above. Nothing leaves the cache, and nothing stays in it for this: a prompt is shared while who read it is sampling."""

    def __init__(self, vllm_config: "VllmConfig", role: "KVConnectorRole", kv_cache_config: "KVCacheConfig") -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        kinds = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
        # Each sample reads its prompt where layers keep only a window of it, which others may have written over, or a state.
        keeps_all = len(kinds) == 1 and type(kinds[0]) is FullAttentionSpec
        self._block_tokens = kinds[0].block_size if keeps_all else 0
        self._block_count = kv_cache_config.num_blocks
        self._readers: dict[Key, Reader] = {}
        self._copies = Copies()
        self._layers: list[torch.Tensor] = []

    @property
    def requires_kv_delivery(self) -> bool:
        """A reader that is preempted owes nobody anything: another one reads."""
        return False

    # In the scheduler

    def get_num_new_matched_tokens(self, request: "Request", num_computed_tokens: int) -> tuple[int | None, bool]:
        """How many tokens of the prompt need not be read, beyond those in whole blocks; None: ask again at the next step."""
        prompt = request.prompt_token_ids or []
        missing = len(prompt) - 1 - num_computed_tokens  # the last token is read by everybody
        if missing <= 0 or request.num_output_tokens or not self._block_tokens:
            return 0, False
        reader = self._readers.get(_key(request))
        if reader is None or reader.request is request or reader.request.status == RequestStatus.PREEMPTED:
            self._readers[_key(request)] = Reader(request, [])
            return 0, False
        if not reader.blocks or reader.request.num_computed_tokens < len(prompt):
            return None, False
        return (missing if missing < self._block_tokens else 0), False  # a copy of the last block gives no more

    def update_state_after_alloc(self, request: "Request", blocks: "KVCacheBlocks", num_external_tokens: int) -> None:
        reader = self._readers.get(_key(request))
        if reader is None:
            return
        (own,) = blocks.get_block_ids()
        if reader.request is request:
            reader.blocks = own
        elif num_external_tokens:
            last = (len(request.prompt_token_ids or []) - 1 - num_external_tokens) // self._block_tokens
            self._copies.sources.append(reader.blocks[last])
            self._copies.targets.append(own[last])

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> KVConnectorMetadata:
        copies = self._copies
        self._copies = Copies()
        return copies

    def request_finished_all_groups(
        self, request: "Request", block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        reader = self._readers.get(_key(request))
        if reader is not None and reader.request is request:
            del self._readers[_key(request)]
        return False, None

    def reset_cache(self) -> bool:
        """Share nothing of what has been read so far: the weights change."""
        self._readers.clear()
        return True

    # In the worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        if self._block_tokens:
            self._layers = list({layer.data_ptr(): layer for layer in kv_caches.values()}.values())
            for name, layer in kv_caches.items():
                if layer.shape[0] != self._block_count:
                    raise RuntimeError(
                        f"the cache of {name} is {tuple(layer.shape)}, and not {self._block_count} blocks"
                    )

    def start_load_kv(self, forward_context: "ForwardContext", **kwargs: Any) -> None:
        copies = self._get_connector_metadata()
        assert isinstance(copies, Copies)
        if copies.sources:
            sources, targets = torch.tensor(copies.sources), torch.tensor(copies.targets)
            for layer in self._layers:
                layer[targets] = layer[sources]  # all are read before any is written

    def wait_for_layer_load(self, layer_name: str) -> None:
        """All are there before the forward."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing leaves the cache."""

    def wait_for_save(self) -> None:
        """Nothing leaves the cache."""


def _key(request: "Request") -> Key:
    return request.cache_salt, tuple(request.prompt_token_ids or ())
