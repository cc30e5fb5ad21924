"""What doctor says of GPUs: a sentence for each thing that is wrong, and what to do."""

import resource
from pathlib import Path

import pytest

from services.command import gpu_findings
from services.command.finding import Finding
from services.command.nvidia import Holder, TorchOnGpu
from services.config import RunConfig
from services.config.load import load
from tests.fakes.gpu_host import GIB, MadeUpHost, card
from tests.services.config.test_load import SMALLEST


@pytest.fixture(autouse=True)
def a_host_that_lacks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("CUDA_VISIBLE_DEVICES", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(gpu_findings, "INFINIBAND", tmp_path / "infiniband")
    monkeypatch.setattr(gpu_findings, "MARKS_OF_CONTAINERS", ())


def found(host: MadeUpHost, run: RunConfig | None = None) -> dict[str, Finding]:
    findings = gpu_findings.gpu_findings(host, run)
    assert all(finding.action for finding in findings if not finding.ok), "every problem says what to do"
    assert all(finding.action == "" for finding in findings if finding.ok)
    return {finding.subject: finding for finding in findings}


def a_run(tmp_path: Path, *overrides: str) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", ["device=cuda", *overrides])


def test_a_host_that_lacks_nothing_has_no_problem() -> None:
    findings = found(MadeUpHost())
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert findings["GPU"].seen == "2: NVIDIA H100 80GB HBM3, 80 GiB; NVIDIA H100 80GB HBM3, 80 GiB"
    assert findings["NCCL"].seen == "2.29.7"


def test_a_driver_that_does_not_answer_ends_the_look_at_gpus() -> None:
    gpu = found(MadeUpHost(fault="no nvidia-smi"))
    assert set(gpu) == {"GPU"}
    assert gpu["GPU"].seen == "no nvidia-smi"
    assert "install the NVIDIA driver" in gpu["GPU"].action
    assert "--gpus all" in gpu["GPU"].action


@pytest.mark.parametrize(
    ("driver", "cuda", "ok", "said"),
    [
        ("580.65.06", "13.0", True, "580.65.06, for CUDA 13.0"),
        ("575.57.08", "13.0", False, "575.57.08 is older than 580"),
        ("535.183.01", "12.8", True, "535.183.01, for CUDA 12.8"),
        ("535.183.01", None, False, "535.183.01 is older than 580"),
        ("610.1", "14.0", True, "610.1, not compared with CUDA 14.0"),
    ],
)
def test_the_driver_is_compared_with_what_torch_was_built_for(
    driver: str, cuda: str | None, ok: bool, said: str
) -> None:
    finding = found(MadeUpHost([card(driver=driver)], its_torch=TorchOnGpu(cuda)))["driver"]
    assert (finding.ok, finding.seen) == (ok, said)
    assert ok or "install driver 580 or newer: this torch is built for CUDA 13.0" in finding.action


@pytest.mark.parametrize(
    ("capability", "dtype", "ok", "said"),
    [
        ((7, 0), None, False, "use a GPU of 7.5 (Turing) or newer"),
        ((7, 5), None, True, 'no bfloat16, so runs need model.dtype = "float32"'),
        ((7, 5), "bfloat16", False, 'set model.dtype = "float32", or use a GPU of 8.0 (Ampere) or newer'),
        ((7, 5), "float32", True, "no bfloat16"),
        ((8, 0), "bfloat16", True, "8.0 (NVIDIA H100 80GB HBM3)"),
        (None, "bfloat16", True, "not known"),
    ],
)
def test_old_architectures_are_refused_and_turing_for_bfloat16_alone(
    tmp_path: Path, capability: tuple[int, int] | None, dtype: str | None, ok: bool, said: str
) -> None:
    run = None if dtype is None else a_run(tmp_path, f"model.dtype={dtype}")
    host = MadeUpHost([card(), card("1", capability=capability)] if capability else [card(capability=None)])
    finding = found(host, run)["compute capability"]
    assert finding.ok is ok
    assert said in finding.seen + finding.action


def test_memory_that_something_else_holds_is_named() -> None:
    held = [Holder("GPU-1", 4711, "python", 30 * GIB), Holder("GPU-0", 1, "other", GIB)]
    finding = found(MadeUpHost([card(), card("1", taken_gib=31)], held))["GPU memory"]
    assert finding.seen == "31.0 of 80.0 GiB of GPU 1 are taken"
    assert finding.action.startswith(
        "end what holds it (process 4711, python, 30.0 GiB), or leave the GPU out of CUDA_"
    )


def test_memory_held_outside_of_the_container_is_said_to_be() -> None:
    finding = found(MadeUpHost([card(taken_gib=31)]))["GPU memory"]
    assert "from within a container it cannot be seen" in finding.action


def test_a_card_that_holds_no_run_is_a_problem() -> None:
    finding = found(MadeUpHost([card(total_gib=8, taken_gib=0.3)]))["GPU memory"]
    assert (finding.ok, finding.seen) == (False, "7.7 GiB free")
    assert "use a GPU with 14 GiB or more" in finding.action
    unknown = found(MadeUpHost([card(total_gib=None)]))["GPU memory"]
    assert (unknown.ok, unknown.seen) == (True, "not known; this driver does not say")


def test_one_gpu_is_no_problem_and_says_how_it_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = MadeUpHost([card()])
    assert found(one)["GPU"].ok
    assert 'needs weights.type = "gloo"' in found(one)["GPU"].seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert found(one, a_run(tmp_path))["GPU"].seen.endswith("shared by learner and replicas")
    refused = found(one, a_run(tmp_path, "weights.type=nccl"))["GPU"]
    assert not refused.ok
    assert 'Set weights.type = "gloo"' in refused.action


def test_only_gpus_that_this_process_may_use_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    host = MadeUpHost([card(), card("1", taken_gib=70), card("2")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-0")
    assert found(host)["GPU"].seen.startswith("2: ")
    assert found(host)["GPU memory"].ok
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "set CUDA_VISIBLE_DEVICES to GPUs of this host" in found(host)["GPU"].action


def test_a_torch_that_cannot_compute_is_a_problem_with_its_words() -> None:
    fault = "AcceleratorError: CUDA error: no kernel image is available for execution on the device"
    finding = found(MadeUpHost(its_torch=TorchOnGpu("13.0", fault=fault)))["torch on GPU"]
    assert (finding.ok, finding.seen) == (False, fault)


def test_without_nccl_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    finding = found(MadeUpHost(its_torch=None))["NCCL"]
    assert (finding.ok, finding.seen) == (False, "not found")
    assert 'pip install ".[gpu]"' in finding.action


def test_pairs_that_do_not_reach_each_other_are_named_and_no_problem() -> None:
    finding = found(MadeUpHost(its_torch=TorchOnGpu("13.0", nccl="2.29.7", apart=((0, 1), (0, 2)))))["GPU to GPU"]
    assert finding.ok
    assert finding.seen.startswith("0 and 1, 0 and 2 do not reach each other's memory: NCCL goes through the host's")


@pytest.mark.parametrize(
    ("limit", "infiniband", "ok", "said"),
    [
        (resource.RLIM_INFINITY, True, True, "no limit"),
        (64 * 2**10, False, True, "it matters for InfiniBand alone, which is not here"),
        (64 * 2**20, True, False, "at most 64 MiB"),
    ],
)
def test_a_cap_on_locked_memory_matters_where_there_is_infiniband(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, infiniband: bool, ok: bool, said: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    if infiniband:
        (tmp_path / "infiniband" / "mlx5_0").mkdir(parents=True)
    finding = found(MadeUpHost())["locked memory"]
    assert finding.ok is ok
    assert said in finding.seen
    assert ok or "--ulimit memlock=-1" in finding.action


def test_what_is_compiled_is_kept_where_the_libraries_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    assert found(MadeUpHost())["compiled kernels"].seen == f"kept in {home}/.cache/vllm and {home}/.triton/cache"
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/never/made")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    finding = found(MadeUpHost())["compiled kernels"]
    assert not finding.ok
    assert finding.action == "set VLLM_CACHE_ROOT to a folder that this user may write"


def test_what_goes_with_the_container_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_findings, "MARKS_OF_CONTAINERS", (Path("/proc"),))
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/never/made")
    monkeypatch.setattr("os.access", lambda *_: True)
    finding = found(MadeUpHost())["compiled kernels"]
    assert "/never/made goes with the container" in finding.seen
    assert "set VLLM_CACHE_ROOT to a folder in a volume" in finding.action
