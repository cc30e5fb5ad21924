"""What is read from nvidia-smi and from torch, by real processes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.command import nvidia
from services.command.nvidia import Card, DriverFault, Holder, NvidiaSmi

MIB = 2**20


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an nvidia-smi on PATH."""

    def put(body: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return put


def test_cards_are_read_with_what_the_driver_does_not_know(smi: Callable[[str], None]) -> None:
    smi(
        "echo '0, GPU-8932f937, NVIDIA H100 80GB HBM3, 580.95.05, 9.0, 81559, 81042'; "
        "echo '1, GPU-1a, NVIDIA GB10, 580.95.05, [N/A], [N/A], [N/A]'"
    )
    assert NvidiaSmi().cards() == [
        Card("0", "GPU-8932f937", "NVIDIA H100 80GB HBM3", "580.95.05", (9, 0), 81559 * MIB, 81042 * MIB),
        Card("1", "GPU-1a", "NVIDIA GB10", "580.95.05", None, None, None),
    ]


def test_holders_are_read_with_commas_in_their_names(smi: Callable[[str], None]) -> None:
    smi("echo 'GPU-1a, 4711, /opt/a, b/python, 3000'; echo 'GPU-1a, 12, x, [N/A]'")
    assert NvidiaSmi().holders() == [
        Holder("GPU-1a", 4711, "/opt/a,b/python", 3000 * MIB),
        Holder("GPU-1a", 12, "x", None),
    ]


def test_what_is_asked_is_what_nvidia_smi_knows(smi: Callable[[str], None], tmp_path: Path) -> None:
    smi(f'echo "$@" >> {tmp_path}/asked')
    assert NvidiaSmi().cards() == []
    assert NvidiaSmi().holders() == []
    assert (tmp_path / "asked").read_text(encoding="utf-8").splitlines() == [
        "--query-gpu=index,uuid,name,driver_version,compute_cap,memory.total,memory.free --format=csv,noheader,nounits",
        "--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory --format=csv,noheader,nounits",
    ]


def test_a_driver_that_fails_says_why(smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    smi("echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9")
    with pytest.raises(DriverFault, match=r"nvidia-smi failed: NVIDIA-SMI has failed because it could not communicate"):
        NvidiaSmi().cards()
    assert NvidiaSmi().cards_or_none() == []
    monkeypatch.setattr(nvidia, "ANSWER_S", 0.1)
    smi("exec sleep 60")
    with pytest.raises(DriverFault, match="timed out"):
        NvidiaSmi().holders()


def test_a_cpu_build_of_torch_says_that_it_has_no_cuda() -> None:
    """The program that asks torch, run for real: on a machine without a GPU its fault is torch's own sentence."""
    said = NvidiaSmi().torch()
    assert said is not None
    assert said.cuda is None
    assert "Torch not compiled with CUDA enabled" in said.fault


@pytest.mark.parametrize(
    ("stdout", "stderr", "fault"),
    [
        ("", "ModuleNotFoundError: No module named 'torch'", None),
        ("", "ImportError: libcudnn.so.9: cannot open shared object file", "ImportError: libcudnn.so.9"),
        ("", "", "its process ended with code 7"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_a_fault_and_a_missing_one_is_not(
    monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str, fault: str | None
) -> None:
    ended = subprocess.CompletedProcess([sys.executable], 7, stdout, stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    said = NvidiaSmi().torch()
    if fault is None:
        assert said is None
    else:
        assert said is not None
        assert said.fault.startswith(fault)


def test_two_cards_of_which_one_cannot_reach_the_other_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'a warning\n{"cuda": "13.0", "fault": "", "nccl": "2.29.7", "apart": [[0, 1]]}\n'
    ended = subprocess.CompletedProcess([sys.executable], 0, line, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    said = NvidiaSmi().torch()
    assert said is not None
    assert (said.cuda, said.nccl, said.apart) == ("13.0", "2.29.7", ((0, 1),))
