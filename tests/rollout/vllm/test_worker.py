"""The worker's half of the adapter, without vLLM: what it answers before and after a transfer."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from rollout.vllm import worker
from rollout.vllm.worker import StagedWeights
from services.wire.codec import encode
from services.wire.weights import Gap, Rendezvous, WeightManifest


class Worker(StagedWeights):
    """What vLLM makes of it."""

    rank = 0
    device = torch.device("cpu")


def test_a_transfer_before_any_generation_is_refused_with_a_reason() -> None:
    manifest = WeightManifest(policy_version=1, pg_generation=1, buckets=(), probes=(), bound=Gap(1e-3, 1e-3, 1e-3))
    assert Worker().stage_weights(encode(manifest), 5.0) == "no generation was joined; join first"


def test_nothing_is_swapped_in_before_a_generation_was_joined() -> None:
    with pytest.raises(AssertionError, match="join_generation comes first"):
        Worker().swap_weights(1)


def test_a_swap_without_memory_says_which_setting_leaves_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Worker):
        model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(1, 1))

        def reload_weights(self, **_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    monkeypatch.setattr(worker, "_let_experts_be_packed_again", lambda _: None)
    full = Full()
    nowhere = Rendezvous(
        pg_generation=1, backend="gloo", host="127.0.0.1", port=1, size=2, first_ranks={}, timeout_s=0.1
    )
    full.join_generation(encode(nowhere), 1)
    assert "Tried to allocate 1.00 GiB. Lower rollout.gpu_memory_fraction" in str(full.swap_weights(1))


def test_importing_the_wing_starts_nothing_and_loads_no_engine() -> None:
    program = (
        "import os, sys, threading; os.environ['RATCHET_ROLLOUT_PID'] = '1';"
        "import rollout.vllm.engine, rollout.vllm.worker, rollout.vllm.parent_watch;"
        "print([t.name for t in threading.enumerate()], 'vllm' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "['MainThread'] False"
