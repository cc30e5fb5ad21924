"""What the NVIDIA driver and torch say of the GPUs of this host.

`nvidia-smi` comes with every driver and with the container toolkit, so the driver's half needs no package. torch is asked in
a process of its own: importing it takes seconds, and a CUDA context takes memory on every GPU.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

from services.errors import RatchetError

ANSWER_S = 30.0
TORCH_S = 120.0
MIB = 2**20
CARD_FIELDS = "index,uuid,name,driver_version,compute_cap,memory.total,memory.free"
HOLDER_FIELDS = "gpu_uuid,pid,process_name,used_gpu_memory"
ASK_TORCH = """
import json, torch
said = {"cuda": torch.version.cuda, "fault": "", "nccl": "", "apart": []}
try:
    count = torch.cuda.device_count()
    for card in range(count):
        ones = torch.ones(64, 64, device=f"cuda:{card}")
        assert (ones @ ones).sum().item() == 64**3, f"GPU {card} multiplies wrongly"
    if not count:
        torch.zeros(1, device="cuda")
    if torch.distributed.is_nccl_available():
        said["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    said["apart"] = [
        [one, other]
        for one in range(count)
        for other in range(one + 1, count)
        if not torch.cuda.can_device_access_peer(one, other)
    ]
except Exception as fault:
    said["fault"] = f"{type(fault).__name__}: {fault}".strip().splitlines()[0]
print(json.dumps(said))
"""


class DriverFault(RatchetError):
    """The driver cannot be asked, or does not answer."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, as the driver sees it."""

    index: str
    uuid: str
    name: str
    driver: str
    """Version of the driver, such as "580.95.05"."""
    capability: tuple[int, int] | None
    """Compute capability; None where the driver does not say."""
    total_bytes: int | None
    free_bytes: int | None
    """Both None where the driver does not say, as on cards that share the host's memory."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has memory on a GPU. Those outside of a container are not seen from within."""

    card_uuid: str
    pid: int
    program: str
    held_bytes: int | None
    """None where the driver does not say."""


@dataclass(frozen=True, slots=True)
class TorchOnGpu:
    """What the installed torch can do with the GPUs that it sees."""

    cuda: str | None
    """The CUDA release that it was built with, such as "13.0"; None: a CPU build."""
    fault: str = ""
    """Why a matrix product on some GPU failed; empty if none did."""
    nccl: str = ""
    """Version of its NCCL; empty: none."""
    apart: tuple[tuple[int, int], ...] = ()
    """Pairs of GPUs that do not reach each other's memory."""


class GpuHost(Protocol):
    """What is asked about the GPUs of a host: of the real one, or of one that a test makes up."""

    def cards(self) -> list[Card]:
        """The GPUs, in the driver's order. Raises DriverFault."""
        ...

    def holders(self) -> list[Holder]:
        """The processes that have memory on them. Raises DriverFault."""
        ...

    def torch(self) -> TorchOnGpu | None:
        """What torch makes of them; None if it is not installed or does not answer."""
        ...


class NvidiaSmi:
    """This host."""

    def cards(self) -> list[Card]:
        found = []
        for line in _ask(f"--query-gpu={CARD_FIELDS}"):
            index, uuid, name, driver, capability, total, free = line
            major, _, minor = capability.partition(".")
            known = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
            found.append(Card(index, uuid, name, driver, known, _bytes(total), _bytes(free)))
        return found

    def cards_or_none(self) -> list[Card]:
        """The GPUs, or an empty list where the driver cannot be asked."""
        try:
            return self.cards()
        except DriverFault:
            return []

    def holders(self) -> list[Holder]:
        return [
            Holder(uuid, int(pid), ",".join(program), _bytes(held))
            for uuid, pid, *program, held in _ask(f"--query-compute-apps={HOLDER_FIELDS}")
        ]

    def torch(self) -> TorchOnGpu | None:
        """What torch makes of the GPUs.

        Waits for: a process that imports torch and multiplies on every GPU.
        Until: 120 s (TORCH_S).
        Ended by: its answer, or the deadline, which kills it and counts as a fault.
        Metric: none; `ratchet doctor` serves none.
        """
        command = [sys.executable, "-P", "-W", "ignore", "-c", ASK_TORCH]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_S, check=False)
        except subprocess.TimeoutExpired:
            return TorchOnGpu(None, fault=f"it did not answer within {TORCH_S:.0f} s")
        try:
            said = json.loads(answer.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            lines = answer.stderr.strip().splitlines()
            return None if "No module named 'torch'" in answer.stderr else TorchOnGpu(
                None, fault=lines[-1] if lines else f"its process ended with code {answer.returncode}"
            )  # fmt: skip
        return TorchOnGpu(
            said["cuda"], said["fault"], said["nccl"], tuple((one, other) for one, other in said["apart"])
        )


def _bytes(mib: str) -> int | None:
    """nvidia-smi's MiB in bytes; None for what it writes where it does not know, such as "[N/A]"."""
    return int(mib) * MIB if mib.isdigit() else None


def _ask(query: str) -> list[list[str]]:
    """The rows that nvidia-smi answers. Raises DriverFault.

    Waits for: nvidia-smi.
    Until: 30 s (ANSWER_S).
    Ended by: its answer, or the deadline, which kills it.
    Metric: none; it is before a run starts.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        raise DriverFault("no nvidia-smi")
    try:
        answer = subprocess.run(
            [command, query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=ANSWER_S, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as fault:
        said = (fault.stdout + fault.stderr).strip().splitlines()
        raise DriverFault(f"nvidia-smi failed: {said[0] if said else fault}") from fault
    except (OSError, subprocess.SubprocessError) as fault:
        raise DriverFault(f"nvidia-smi failed: {fault}") from fault
    return [[part.strip() for part in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
