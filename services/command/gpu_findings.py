"""`ratchet doctor --device cuda`: what the GPUs of this host, their driver and their surroundings lack."""

import ctypes.util
import importlib.metadata
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.command import gpus
from services.command.finding import Finding
from services.command.nvidia import Card, DriverFault, GpuHost, Holder, TorchOnGpu
from services.config import RunConfig
from services.errors import InputError

GIB = 2**30
DRIVER_OF_CUDA = {12: 525, 13: 580}
"""First major version of the driver that runs programs of a CUDA release (its release notes, "minor version compatibility")."""
CUDA = "13.0"
"""The release that requirements/gpu.lock brings."""
LEAST_CAPABILITY = (7, 5)
"""Turing, the oldest architecture that CUDA 13 compiles for."""
BFLOAT16_CAPABILITY = (8, 0)
"""Ampere; vLLM refuses bfloat16 below it."""
OTHERS_BYTES = GIB
"""Memory in use that is not worth a word: the driver's own, a desktop's."""
LEAST_BYTES = 14 * GIB
"""Free memory of a card below which even the smallest model of deploy/runs does not train beside its engine."""
LOCKED_BYTES = GIB
"""Memory that NCCL's transports over InfiniBand may have to lock."""
INFINIBAND = Path("/sys/class/infiniband")
MARKS_OF_CONTAINERS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def gpu_findings(host: GpuHost, run: RunConfig | None = None) -> list[Finding]:
    """Check GPUs, driver, torch, NCCL, and what they need of the host. run: what they are compared with, if given."""
    try:
        cards, holders = _usable(host.cards()), host.holders()
    except DriverFault as fault:
        action = (
            "install the NVIDIA driver, or load it again; in a container, start it with --gpus all; or use --device cpu"
        )
        return [Finding("GPU", False, str(fault), action)]
    if not cards:
        action = f"set {gpus.VARIABLE} to GPUs of this host, or unset it; in a container, start it with --gpus all"
        return [Finding("GPU", False, "the driver shows none that this process may use", action)]
    torch = host.torch()
    found = [_count(cards, run), _driver(cards, torch), _capability(cards, run), _memory(cards, holders)]
    return [*found, _torch(torch), _nccl(torch), _peers(torch), _locked_memory(), _caches()]


def _usable(cards: Sequence[Card]) -> list[Card]:
    """The cards that CUDA_VISIBLE_DEVICES lets this process use. A slice of a card (MIG) stands for a card that has slices."""
    named = None if os.environ.get(gpus.VARIABLE) is None else gpus.visible()
    if named is None or any(name.startswith("MIG") for name in named):
        return list(cards)
    return [card for name in named for card in cards if card.index == name or card.uuid.startswith(name)]


def _count(cards: Sequence[Card], run: RunConfig | None) -> Finding:
    seen = f"{len(cards)}: " + "; ".join(
        card.name if card.total_bytes is None else f"{card.name}, {card.total_bytes / GIB:.0f} GiB" for card in cards
    )
    if run is None:
        one = (
            '. A run on one GPU needs weights.type = "gloo", and learner and replica share it'
            if len(cards) == 1
            else ""
        )
        return Finding("GPU", True, seen + one)
    try:
        taken = gpus.assigned(run)
    except InputError as fault:
        return Finding("GPU", False, seen, str(fault))
    return Finding("GPU", True, seen + (", shared by learner and replicas" if gpus.shared(taken) else ""))


def _driver(cards: Sequence[Card], torch: TorchOnGpu | None) -> Finding:
    subject, driver = "driver", cards[0].driver
    cuda = (torch and torch.cuda) or CUDA
    wanted, major = DRIVER_OF_CUDA.get(int(cuda.partition(".")[0])), driver.partition(".")[0]
    if wanted is None or not major.isdigit():
        return Finding(subject, True, f"{driver}, not compared with CUDA {cuda}")
    if int(major) >= wanted:
        return Finding(subject, True, f"{driver}, for CUDA {cuda}")
    action = f"install driver {wanted} or newer: this torch is built for CUDA {cuda}, which older drivers do not run"
    return Finding(subject, False, f"{driver} is older than {wanted}", action)


def _capability(cards: Sequence[Card], run: RunConfig | None) -> Finding:
    subject = "compute capability"
    known = [(card.capability, card) for card in cards if card.capability is not None]
    if not known:
        return Finding(subject, True, "not known; this driver does not say")
    least, card = min(known, key=lambda one: one[0])
    seen = f"{least[0]}.{least[1]} ({card.name})"
    if least < LEAST_CAPABILITY:
        return Finding(
            subject, False, seen,
            f"use a GPU of 7.5 (Turing) or newer, or leave this one out of {gpus.VARIABLE}: CUDA 13 has no kernels for it",
        )  # fmt: skip
    if least >= BFLOAT16_CAPABILITY:
        return Finding(subject, True, seen)
    if run is not None and run.model.dtype == "bfloat16":
        action = 'set model.dtype = "float32", or use a GPU of 8.0 (Ampere) or newer: this one has no bfloat16'
        return Finding(subject, False, seen, action)
    return Finding(subject, True, f'{seen}: no bfloat16, so runs need model.dtype = "float32"')


def _memory(cards: Sequence[Card], holders: Sequence[Holder]) -> Finding:
    subject = "GPU memory"
    for card in cards:
        if card.total_bytes is None or card.free_bytes is None:
            continue
        used = card.total_bytes - card.free_bytes
        if used > OTHERS_BYTES:
            seen = f"{used / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB of GPU {card.index} are taken"
            action = f"end what holds it ({_named(card, holders)}), or leave the GPU out of {gpus.VARIABLE}"
            return Finding(subject, False, seen, action)
    free = [(card.free_bytes, card.index) for card in cards if card.free_bytes is not None]
    if not free:
        return Finding(subject, True, "not known; this driver does not say")
    least, index = min(free)
    seen = f"{least / GIB:.1f} GiB free" + (f" on GPU {index}, the least" if len(free) > 1 else "")
    if least >= LEAST_BYTES:
        return Finding(subject, True, seen)
    action = f"use a GPU with {LEAST_BYTES // GIB} GiB or more; the smallest run of deploy/runs takes that"
    return Finding(subject, False, seen, action)


def _named(card: Card, holders: Sequence[Holder]) -> str:
    named = [
        f"process {holder.pid}, {holder.program}"
        + ("" if holder.held_bytes is None else f", {holder.held_bytes / GIB:.1f} GiB")
        for holder in holders
        if holder.card_uuid == card.uuid
    ]
    return "; ".join(named) or "`nvidia-smi` on the host names it; from within a container it cannot be seen"


def _torch(torch: TorchOnGpu | None) -> Finding:
    subject = "torch on GPU"
    if torch is None:
        return Finding(subject, True, "not checked, because torch is not installed")
    if torch.fault:
        action = (
            "mend first what the findings above name; if they name nothing, `python -c 'import torch; torch.ones(1).cuda()'` "
            "says more"
        )
        return Finding(subject, False, torch.fault, action)
    return Finding(subject, True, f"CUDA {torch.cuda}, a product of matrices on each GPU is right")


def _nccl(torch: TorchOnGpu | None) -> Finding:
    if torch is not None and torch.nccl:
        return Finding("NCCL", True, torch.nccl)
    found = _library()
    action = "" if found else 'install it: pip install ".[gpu]", or the CUDA build of torch, which brings it'
    return Finding("NCCL", found is not None, found or "not found", action)


def _library() -> str | None:
    """The path or name of the NCCL library, or None."""
    try:
        files = importlib.metadata.files("nvidia-nccl-cu13") or []
    except importlib.metadata.PackageNotFoundError:
        return ctypes.util.find_library("nccl")
    return next((str(path) for path in files if path.name.startswith("libnccl.so")), None)


def _peers(torch: TorchOnGpu | None) -> Finding:
    """Never a problem: NCCL goes through the host's memory then."""
    subject = "GPU to GPU"
    if torch is None or torch.fault:
        return Finding(subject, True, "not checked")
    if not torch.apart:
        return Finding(subject, True, "every pair reaches each other's memory")
    pairs = ", ".join(f"{one} and {other}" for one, other in torch.apart[:4])
    more = f", and {len(torch.apart) - 4} more pairs" if len(torch.apart) > 4 else ""
    return Finding(
        subject, True, f"{pairs}{more} do not reach each other's memory: NCCL goes through the host's, slower"
    )


def _locked_memory() -> Finding:
    subject = "locked memory"
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    seen = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit / 2**20:.0f} MiB"
    if limit == resource.RLIM_INFINITY or limit >= LOCKED_BYTES:
        return Finding(subject, True, seen)
    if not INFINIBAND.is_dir() or not any(INFINIBAND.iterdir()):
        return Finding(subject, True, f"{seen}; it matters for InfiniBand alone, which is not here")
    action = (
        "lift it, or NCCL cannot use InfiniBand: `ulimit -l unlimited`; Docker: --ulimit memlock=-1; Compose: ulimits"
    )
    return Finding(subject, False, seen, action)


def _caches() -> Finding:
    """Whether what vLLM and Triton compile is still there at the next start."""
    subject = "compiled kernels"
    folders = caches(os.environ, Path.home())
    for variable, folder in folders.items():
        there = folder
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK):
            action = f"set {variable} to a folder that this user may write"
            return Finding(subject, False, f"{folder} cannot be written, so engines compile at each start", action)
        if any(mark.exists() for mark in MARKS_OF_CONTAINERS) and there.stat().st_dev == Path("/").stat().st_dev:
            action = f"set {variable} to a folder in a volume, as docker-compose.yml does"
            seen = f"{folder} goes with the container, and with it a minute or two at the next start"
            return Finding(subject, False, seen, action)
    return Finding(subject, True, "kept in " + " and ".join(str(folder) for folder in folders.values()))


def caches(environment: Mapping[str, str], home: Path) -> dict[str, Path]:
    """Variable -> the folder where a library keeps what it compiled. What torch compiles for vLLM is in vLLM's."""
    of_user = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    defaults = {"VLLM_CACHE_ROOT": of_user / "vllm", "TRITON_CACHE_DIR": home / ".triton" / "cache"}
    return {variable: Path(environment.get(variable) or default) for variable, default in defaults.items()}
