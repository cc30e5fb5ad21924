import argparse
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services import entry
from services.command import compose
from services.config import RunConfig
from services.config.load import load
from services.errors import InputError

ROOT = Path(__file__).parents[3]
RUN = ROOT / "deploy" / "runs" / "gsm8k-2x80gb-compose.toml"


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def config(ranks: int = 1, width: int = 1) -> RunConfig:
    return load(RUN, [f"learner.ranks={ranks}", f"rollout.tensor_parallel={width}"])


def gpus_of(service: dict[str, Any]) -> list[str]:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    ids: list[str] = device["device_ids"]
    return ids


@pytest.mark.parametrize(("ranks", "width", "gpus"), [(1, 1, 2), (1, 1, 4), (4, 1, 8), (2, 2, 8), (2, 3, 6)])
def test_no_gpu_is_given_twice_and_each_replica_has_its_own(
    source: dict[str, Any], ranks: int, width: int, gpus: int
) -> None:
    services = compose.dealt_out(source, config(ranks, width), ["r.toml"], gpus)["services"]
    replicas = [service for name, service in services.items() if name.startswith("rollout-gpu")]
    assert len(replicas) == (gpus - ranks) // width
    taken = gpus_of(services["learner-gpu"]) + [gpu for replica in replicas for gpu in gpus_of(replica)]
    assert taken == [str(number) for number in range(ranks + width * len(replicas))]
    for replica in replicas:
        assert replica["networks"]["default"]["aliases"] == ["rollout"], "Prometheus finds them by it"
        assert replica["command"] == ["rollout", "r.toml"]
    entrypoint = services["learner-gpu"].get("entrypoint")
    assert entrypoint == (["torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else None)


def test_what_is_not_the_gpu_rooms_stays_as_it_was(source: dict[str, Any]) -> None:
    written = compose.dealt_out(source, config(), ["r.toml"], 4)
    assert {"redis", "prometheus", "alertmanager", "grafana", "verifier-gpu"} <= set(written["services"])
    assert not {"rollout", "learner", "verifier"} & set(written["services"]), "those of the profile cpu"
    for name in ("redis", "prometheus", "grafana"):
        assert written["services"][name] == source["services"][name]
    page = written["services"]["page-gpu"]["command"]
    assert page == ["page", "r.toml", *source["services"]["page-gpu"]["command"][2:]], "of the run that is given"
    assert written["volumes"] == source["volumes"]
    assert written["secrets"] == source["secrets"]
    assert gpus_of(source["services"]["rollout-gpu"]) == ["${RATCHET_ROLLOUT_GPU:-1}"], "what was read is not changed"


@pytest.mark.parametrize(
    ("ranks", "width", "gpus", "said"),
    [(1, 1, 1, "give 2 or more"), (4, 2, 5, "give 6 or more"), (1, 1, 0, "--gpus 0: ")],
)
def test_too_few_gpus_are_refused_with_the_number_that_would_do(
    source: dict[str, Any], ranks: int, width: int, gpus: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        compose.dealt_out(source, config(ranks, width), ["r.toml"], gpus)


def test_a_run_that_takes_no_gpu_is_refused(source: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--scale rollout=N"):
        compose.dealt_out(source, load(ROOT / "deploy" / "runs" / "addition-cpu.toml"), ["r.toml"], 4)


def test_a_run_file_that_no_service_sees_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="copy it there"):
        compose.run_command(tmp_path / "r.toml", ROOT, [])
    assert compose.run_command(RUN, ROOT, ["seed=2"]) == [
        "deploy/runs/gsm8k-2x80gb-compose.toml",
        "--set",
        "seed=2",
    ]


def test_the_file_that_is_written_is_one_for_compose_and_is_written_over_only_if_it_is_ours(tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(ROOT / "deploy" / "runs", root / "deploy" / "runs")
    shutil.copy(ROOT / "docker-compose.yml", root)
    output = root / "docker-compose.gpus.yml"
    parser = argparse.ArgumentParser()
    entry.add_config_arguments(parser)
    compose.add_arguments(parser)
    arguments = parser.parse_args([str(root / "deploy/runs" / RUN.name), "--gpus", "4", "--output", str(output)])
    for _ in range(2):
        assert compose.run(arguments) == 0
    assert len([name for name in yaml.safe_load(output.read_text())["services"] if "rollout" in name]) == 3
    if shutil.which("docker-compose"):
        said = subprocess.run(
            ["docker-compose", "-f", output, "--profile", "gpu", "config", "-q"],
            check=False,
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stderr
    output.write_text("services: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not ours"):
        compose.run(arguments)
    output.unlink()
    (root / "docker-compose.yml").unlink()
    with pytest.raises(InputError, match=r"no docker-compose\.yml beside"):
        compose.run(arguments)
