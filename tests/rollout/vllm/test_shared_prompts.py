"""Who reads a prompt, who waits, and what is copied; test_engine.py asks the real engine for what comes of it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec, SlidingWindowSpec
from vllm.v1.request import RequestStatus

from rollout.vllm.shared_prompts import Copies, SharedPrompts

BLOCK = 32
PROMPT = list(range(40))  # one whole block and eight tokens


SIZES: Any = {"block_size": BLOCK, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float32}
WHOLE = FullAttentionSpec(**SIZES)


def connector(*kinds: KVCacheSpec) -> SharedPrompts:
    groups = [SimpleNamespace(kv_cache_spec=kind) for kind in kinds or [WHOLE]]
    anything: Any = SimpleNamespace(kv_transfer_config=SimpleNamespace(), kv_cache_groups=groups, num_blocks=8)
    return SharedPrompts(anything, anything, anything)


def request(prompt: list[int] = PROMPT, *, salt: str = "weights-1", outputs: int = 0) -> Any:
    return SimpleNamespace(
        prompt_token_ids=prompt,
        cache_salt=salt,
        num_output_tokens=outputs,
        num_computed_tokens=0,
        status=RequestStatus.WAITING,
    )


def scheduled(shared: SharedPrompts, one: Any, blocks: list[int], *, external: int = 0) -> None:
    one.status = RequestStatus.RUNNING
    allocated: Any = SimpleNamespace(get_block_ids=lambda: (blocks,))
    shared.update_state_after_alloc(one, allocated, external)


def after_step(shared: SharedPrompts, *computed: Any) -> Copies:
    for one in computed:
        one.num_computed_tokens = len(one.prompt_token_ids)
    anything: Any = None
    copies = shared.build_connector_meta(anything)
    assert isinstance(copies, Copies)
    return copies


@pytest.fixture
def shared() -> SharedPrompts:
    return connector()


def test_the_first_reads_the_others_wait_for_a_step_and_get_a_copy(shared: SharedPrompts) -> None:
    first, second = request(), request()
    assert shared.get_num_new_matched_tokens(first, 0) == (0, False)
    scheduled(shared, first, [3, 4])
    assert shared.get_num_new_matched_tokens(second, 32) == (None, False)  # it is being read in this step
    assert after_step(shared, first) == Copies()
    assert shared.get_num_new_matched_tokens(second, 32) == (7, False)  # all but the last token
    scheduled(shared, second, [3, 5], external=7)
    assert after_step(shared, second) == Copies([4], [5])
    assert after_step(shared) == Copies()


def test_one_for_which_there_was_no_room_reads_when_there_is(shared: SharedPrompts) -> None:
    first, second = request(), request()
    assert shared.get_num_new_matched_tokens(first, 0) == (0, False)
    assert shared.get_num_new_matched_tokens(second, 0) == (None, False)  # it comes after the first
    assert shared.get_num_new_matched_tokens(first, 0) == (0, False)


@pytest.mark.parametrize("end", ["finished", "preempted", "weights change"])
def test_where_the_reader_is_gone_the_next_one_reads(shared: SharedPrompts, end: str) -> None:
    first, second, third = request(), request(), request()
    shared.get_num_new_matched_tokens(first, 0)
    scheduled(shared, first, [3, 4])
    after_step(shared, first)
    if end == "finished":
        assert shared.request_finished_all_groups(first, ([3, 4],)) == (False, None)
    elif end == "preempted":
        first.status = RequestStatus.PREEMPTED
        first.num_computed_tokens = 0
    else:
        assert shared.reset_cache()
    assert shared.get_num_new_matched_tokens(second, 0) == (0, False)
    scheduled(shared, second, [6, 7])
    after_step(shared, second)
    if end != "finished":
        shared.request_finished_all_groups(first, ([3, 4],))  # who read before takes nothing away
    assert shared.get_num_new_matched_tokens(third, 32) == (7, False)
    scheduled(shared, third, [6, 2], external=7)
    assert after_step(shared, third) == Copies([7], [2])


def test_nothing_is_shared_across_weights_prompts_or_tokens_already_sampled(shared: SharedPrompts) -> None:
    first = request()
    shared.get_num_new_matched_tokens(first, 0)
    scheduled(shared, first, [3, 4])
    after_step(shared, first)
    assert shared.get_num_new_matched_tokens(request(salt="weights-2"), 0) == (0, False)
    assert shared.get_num_new_matched_tokens(request([*PROMPT[:-1], 99]), 0) == (0, False)
    assert shared.get_num_new_matched_tokens(request(outputs=3), 0) == (0, False)  # it was preempted


@pytest.mark.parametrize(
    ("prompt", "computed"),
    [([7], 0), (PROMPT[:33], 32), (PROMPT, 0)],
    ids=["one token", "all but the last in whole blocks", "a whole block is not there"],
)
def test_what_a_copy_of_one_block_does_not_give_is_read(
    shared: SharedPrompts, prompt: list[int], computed: int
) -> None:
    first = request(prompt)
    shared.get_num_new_matched_tokens(first, 0)
    scheduled(shared, first, [3, 4])
    after_step(shared, first)
    assert shared.get_num_new_matched_tokens(request(prompt), computed) == (0, False)


@pytest.mark.parametrize("kinds", [(SlidingWindowSpec(**SIZES, sliding_window=64),), (WHOLE, WHOLE)])
def test_layers_that_do_not_keep_all_of_a_prompt_share_nothing(kinds: tuple[KVCacheSpec, ...]) -> None:
    shared = connector(*kinds)
    for _ in range(2):
        assert shared.get_num_new_matched_tokens(request(PROMPT[:6]), 0) == (0, False)
    shared.register_kv_caches({"layer": torch.zeros(2, 3)})


def test_blocks_are_copied_in_every_layer_once() -> None:
    shared = connector()
    one, other = torch.arange(8.0)[:, None].repeat(1, 3), torch.arange(8.0)[:, None] * 10
    shared.register_kv_caches({"a": one, "b": other, "a again": one})
    # Block 2 is read although it is written over: what is there before the step counts.
    shared.bind_connector_metadata(Copies([4, 4, 2], [5, 2, 6]))
    anything: Any = None
    shared.start_load_kv(anything)
    assert one[:, 0].tolist() == [0, 1, 4, 3, 4, 4, 2, 7]
    assert other[:, 0].tolist() == [0, 10, 40, 30, 40, 40, 20, 70]


def test_a_cache_of_another_shape_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"the cache of layer is \(2, 8, 3\), and not 8 blocks"):
        connector().register_kv_caches({"layer": torch.zeros(2, 8, 3)})
