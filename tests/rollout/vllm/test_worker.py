"""The worker's half of the adapter, without vLLM: what it answers before and after a transfer."""

import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from rollout.vllm import worker
from rollout.vllm.pairing import CannotExchange
from rollout.vllm.worker import StagedWeights
from services.wire.codec import encode
from services.wire.weights import Gap, WeightManifest
from tests.rollout.weights.test_receiver import Learner, soon


class Worker(StagedWeights):
    """What vLLM makes of it."""

    rank = 0
    device = torch.device("cpu")


def test_a_transfer_before_any_generation_is_refused_with_a_reason() -> None:
    manifest = WeightManifest(policy_version=1, pg_generation=1, buckets=(), probes=(), bound=Gap(1e-3, 1e-3, 1e-3))
    assert Worker().stage_weights(encode(manifest), 5.0, False) == "no generation was joined; join first"


def test_nothing_is_swapped_in_before_a_generation_was_joined() -> None:
    with pytest.raises(AssertionError, match="join_generation comes first"):
        Worker().swap_weights(1)


class Served:
    """A worker that a learner has sent versions to."""

    def __init__(self, worker: Worker, *, prepare: bool) -> None:
        self.worker = worker
        self._prepare = prepare
        self._learner = Learner()
        rendezvous = self._learner.rendezvous(1)
        worker.join_generation(encode(rendezvous), 1, prepare)
        self._learner.channel.form(rendezvous, soon())
        self._settle()

    def receive(self, version: int) -> None:
        manifest, flat_buckets = self._learner.manifest(version, 1, float(version))
        assert self.worker.stage_weights(encode(manifest), 20.0, self._prepare) is None
        self._learner.channel.send(manifest, flat_buckets, soon())
        self._settle()

    def _settle(self) -> None:
        ends_s = time.monotonic() + 20
        while self.worker.weights_progress()[0] == "busy" and time.monotonic() < ends_s:
            time.sleep(0.005)
        assert self.worker.weights_progress() == ("ready", "")


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "before_reload", lambda _: None)
    monkeypatch.setattr(worker, "after_reload", lambda _: None)


@pytest.mark.usefixtures("no_vllm")
def test_a_swap_without_memory_says_which_setting_leaves_more() -> None:
    class Full(Worker):
        model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(1, 1))

        def reload_weights(self, **_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    served = Served(Full(), prepare=False)
    served.receive(1)
    kind, said = served.worker.swap_weights(1)
    assert kind == "refused"
    assert "Tried to allocate 1.00 GiB. Lower rollout.gpu_memory_fraction" in said


@pytest.mark.usefixtures("no_vllm")
def test_a_model_that_cannot_be_exchanged_is_reloaded_and_the_reason_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Second:
        def __init__(self, *_: object) -> None:
            self.running = 0.0

        def prepare(self, weights: Iterator[tuple[str, torch.Tensor]]) -> bool:
            if float(dict(weights)["a"][0]) == 2.0:
                raise CannotExchange("layer.0 is in one model alone\nand more")
            return False

        def was_reloaded(self) -> None: ...

    class Reloading(Worker):
        model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(1, 1))
        vllm_config = None
        reloaded: ClassVar[list[float]] = []

        def reload_weights(self, weights_iterator: Iterator[tuple[str, torch.Tensor]], **_: object) -> None:
            self.reloaded.append(float(dict(weights_iterator)["a"][0]))

    monkeypatch.setattr(worker, "SecondModel", Second)
    served = Served(Reloading(), prepare=True)
    swaps = []
    for version in (1, 2, 3):
        served.receive(version)
        swaps.append(served.worker.swap_weights(version))
    assert swaps == [("reload", ""), ("reload", "CannotExchange: layer.0 is in one model alone"), ("reload", "")]
    assert Reloading.reloaded == [1.0, 2.0, 3.0]


def test_importing_the_wing_starts_nothing_and_loads_no_engine() -> None:
    program = (
        "import os, sys, threading; os.environ['RATCHET_ROLLOUT_PID'] = '1';"
        "import rollout.vllm.engine, rollout.vllm.worker, rollout.vllm.parent_watch;"
        "print([t.name for t in threading.enumerate()], 'vllm' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "['MainThread'] False"
