"""The memory of every GPU that answers is exported; where no driver answers, a run goes on without."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from services.gpu_memory import GPU_MEMORY, export_gpu_memory


class NVMLError(Exception):
    pass


class Driver(ModuleType):
    """Stands in for nvidia-ml-py: three GPUs, of which the second does not answer."""

    NVMLError = NVMLError

    def __init__(self, *, answers: bool = True) -> None:
        super().__init__("pynvml")
        self.answers = answers

    def nvmlInit(self) -> None:
        if not self.answers:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if handle == 1:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(used=handle * 10, total=80)

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return f"GPU-{handle}" if handle else b"GPU-0"


@pytest.fixture
def exported() -> Iterator[None]:
    yield
    REGISTRY.unregister(GPU_MEMORY)


@pytest.mark.usefixtures("exported")
def test_each_gpu_that_answers_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    export_gpu_memory()
    used = {gpu: REGISTRY.get_sample_value("ratchet_gpu_memory_used_bytes", {"gpu": f"GPU-{gpu}"}) for gpu in range(3)}
    assert used == {0: 0, 1: None, 2: 20}
    assert REGISTRY.get_sample_value("ratchet_gpu_memory_total_bytes", {"gpu": "GPU-2"}) == 80


def test_without_a_driver_the_log_says_why_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(answers=False))
    with caplog.at_level(logging.WARNING, "ratchet"):
        export_gpu_memory()
    assert "driver not loaded" in caplog.text
    assert REGISTRY.get_sample_value("ratchet_gpu_memory_total_bytes", {"gpu": "GPU-0"}) is None
