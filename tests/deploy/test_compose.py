import os
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from services.command.gpu_findings import caches
from services.config.load import load
from services.entry import END_CODE_VARIABLE, REDIS_PASSWORD_FILE_VARIABLE, version
from services.page.__main__ import named

ROOT = Path(__file__).parents[2]
ALL_RUNS = sorted((ROOT / "deploy" / "runs").glob("*.toml"))
GPU_RUNS = [path for path in ALL_RUNS if load(path).device == "cuda"]
RUNS = [path for path in ALL_RUNS if load(path).weights.host == "learner"]
"""Those for Compose; the others are for `ratchet up`."""
ROOMS = {"verifier", "rollout", "learner", "verifier-gpu", "rollout-gpu", "learner-gpu"}
PAGES = {"page", "page-gpu"}
OURS = ROOMS | PAGES
SERVICES = {"redis", "prometheus", "alertmanager", "grafana", *OURS}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def scrape_ports() -> dict[str, int]:
    settings = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    found = {}
    for job in settings["scrape_configs"]:
        for discovery in job.get("dns_sd_configs", []):
            assert discovery["type"] == "A", "an A record per container: a scaled service has several"
            assert discovery["names"] == [job["job_name"]]
            found[job["job_name"]] = discovery["port"]
    return found


def test_every_service_is_there_and_watched(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_no_service_may_write_its_root_or_has_a_right_of_roots(compose: dict[str, Any]) -> None:
    volumes = set(compose["volumes"])
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"], name
        for mount in service["volumes"]:
            source, _, rest = mount.partition(":")
            assert source in volumes or rest.endswith(":ro"), f"{name}: {mount}"
    assert volumes == {
        mount.partition(":")[0] for s in compose["services"].values() for mount in s["volumes"] if mount[0] != "."
    }


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for mount in service["volumes"]:
            source = mount.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists(), f"{name}: {mount}"


def test_a_probe_tells_loading_from_hanging(compose: dict[str, Any]) -> None:
    for name in ROOMS:
        probe = compose["services"][name]["healthcheck"]
        assert "/readyz" in " ".join(probe["test"]), "/healthz is answered while a model is loaded"
        assert probe["start_period"] in ("2m", "20m"), "until then a container is `starting`, and then `unhealthy`"


def test_images_of_others_are_pinned_and_can_be_named(compose: dict[str, Any]) -> None:
    for name in SERVICES - OURS:
        named, _, image = compose["services"][name]["image"].partition(":-")
        assert named == f"${{{name.upper()}_IMAGE"
        assert image.rstrip("}").rpartition(":")[2][0] in "v0123456789", image


def test_a_room_that_refuses_its_input_is_not_started_for_ever(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        policy, _, tries = service["restart"].partition(":")
        assert policy == "on-failure", name
        assert name == "redis" or 1 <= int(tries) <= 100, name
    for name in ROOMS:
        assert compose["services"][name]["environment"][END_CODE_VARIABLE] == 0, "Docker starts again what ends with 2"


def test_the_file_has_no_key_that_only_one_generation_of_compose_knows(compose: dict[str, Any]) -> None:
    top = {key for key in compose if not key.startswith("x-")}
    assert top == {"services", "volumes", "secrets"}  # `name` is refused by 1.29; `version` is warned about by v2
    later = {"develop", "attach", "annotations", "post_start", "pre_stop", "gpus", "pull_refresh_after"}
    for service in compose["services"].values():
        assert not later & set(service)


def test_only_what_people_look_at_is_published_and_only_to_this_host(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert set(published) == {"prometheus", "grafana", *PAGES}
    assert all(str(port).startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_redis_loses_nothing_and_wants_a_password(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    for setting in ("appendonly yes", "maxmemory-policy noeviction", "requirepass"):
        assert setting in command


def test_the_file_holds_no_secret_and_down_needs_none(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert ":?" not in text, "a variable without which `docker compose down` would be refused"
    assert compose["secrets"]["redis-password"]["file"] == "${REDIS_PASSWORD_FILE:-./deploy/no-password}"
    assert (ROOT / "deploy" / "no-password").read_text(encoding="utf-8") == ""
    for name in ("redis", *OURS):
        assert compose["services"][name]["secrets"] == ["redis-password"], name
    for name in OURS:
        environment = compose["services"][name]["environment"]
        assert environment[REDIS_PASSWORD_FILE_VARIABLE] == "/run/secrets/redis-password"


@pytest.mark.parametrize(
    ("variable", "file", "said", "started"),
    [
        ("", "", "no password for Redis: write one into a file", None),
        ("two words", "", "letters, digits", None),
        ("", "in'quotes", "letters, digits", None),
        ("", "of-the-file\n", "", "requirepass of-the-file"),
        ("own", "of-the-file\n", "", "requirepass own"),
    ],
)
def test_without_a_usable_password_no_server_is_started(
    compose: dict[str, Any], tmp_path: Path, variable: str, file: str, said: str, started: str | None
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(file, encoding="utf-8")
    server = tmp_path / "redis-server"
    server.write_text(f"#!/bin/sh\ncat > {tmp_path}/started\n", encoding="utf-8")
    server.chmod(0o755)
    redis = compose["services"]["redis"]
    (script,) = redis["command"]
    (tmp_path / "sleep").write_text("#!/bin/sh\nkill $PPID\n", encoding="utf-8")  # it would wait for a password
    (tmp_path / "sleep").chmod(0o755)
    done = subprocess.run(
        [*redis["entrypoint"], script.replace("$$", "$").replace("/run/secrets/redis-password", str(secret))],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDIS_PASSWORD": variable},
    )
    assert (done.returncode == 0) == (started is not None), "it may not end: docker-compose 1.29 would start the others"
    assert said in done.stderr
    settings = tmp_path / "started"
    assert settings.exists() == (started is not None)
    if started:
        assert settings.read_text(encoding="utf-8").splitlines()[0] == started


SERVER = """#!/bin/sh
cat > {folder}/settings
trap 'echo saved > {folder}/bye; exit 0' TERM
mv {folder}/settings {folder}/started
while :; do /bin/sleep 0.05; done
"""


def of_compose(path: str) -> str:
    """The command of Redis in a file of Compose."""
    (command,) = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))["services"]["redis"]["command"]
    return str(command).replace("$$", "$")


def of_the_chart(path: str) -> str:
    """The command of Redis in a template of the chart, as the pod has it."""
    text = (ROOT / path).read_text(encoding="utf-8").partition("args:\n")[2].partition("          env:")[0]
    (command,) = yaml.safe_load(text)
    return str(command)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (of_compose, "docker-compose.yml"),
        (of_compose, "deploy/compose.hosts.yml"),
        (of_the_chart, "deploy/k8s/templates/redis.yaml"),
    ],
)
def test_redis_itself_is_asked_to_stop(command: Callable[[str], str], path: str, tmp_path: Path) -> None:
    """And not a shell before it, which dies of the signal, or as the first process of a container does not hear it."""
    (tmp_path / "redis-server").write_text(SERVER.format(folder=tmp_path), encoding="utf-8")
    (tmp_path / "redis-server").chmod(0o755)
    variables = {"REDIS_PASSWORD": "secret", "RATCHET_HEAD": "10.0.0.1"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    with subprocess.Popen(["sh", "-c", command(path)], env=environment) as server:
        end_s = time.monotonic() + 20
        while not (tmp_path / "started").exists():
            assert time.monotonic() < end_s, "it is not started"
            time.sleep(0.02)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert (tmp_path / "bye").read_text(encoding="utf-8") == "saved\n"
    said = (tmp_path / "started").read_text(encoding="utf-8").splitlines()
    assert "requirepass secret" in said
    assert ("bind 10.0.0.1 127.0.0.1" in said) == ("hosts" in path)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_each_profile_runs_the_three_rooms_from_one_image(compose: dict[str, Any], profile: str) -> None:
    of_profile = {n: s for n, s in compose["services"].items() if profile in s.get("profiles", []) and n not in PAGES}
    assert {service["command"][0] for service in of_profile.values()} == {"verifier", "rollout", "learner"}
    for name, service in of_profile.items():
        room, run = service["command"]
        assert service["image"] == f"ratchet:{profile}"
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert (ROOT / run.split(":-")[1].rstrip("}")).is_file()
        assert service["environment"]["RATCHET_REDIS_URL"] == "redis://:${REDIS_PASSWORD:-}@redis:6379/0"
        assert f":{scrape_ports()[room]}/readyz" in " ".join(service["healthcheck"]["test"])
        assert "container_name" not in service, "a service with a fixed name cannot be scaled"
        if profile == "gpu" and room != "verifier":
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert device["driver"] == "nvidia"
        if name != room:
            assert room in service["networks"]["default"]["aliases"]


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_what_is_downloaded_and_compiled_is_in_a_volume(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert "cache:/ratchet/cache" in service["volumes"]
    for variable in (*caches({}, Path("/root")), "HF_HOME"):
        assert service["environment"][variable].startswith("/ratchet/cache/")


def test_gpu_services_are_told_of_networks_and_may_lock_memory(compose: dict[str, Any]) -> None:
    for name in ("rollout-gpu", "learner-gpu"):
        environment = compose["services"][name]["environment"]
        for variable in ("NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE", "GLOO_SOCKET_IFNAME"):
            assert environment[variable] is None, "passed on if it is set, and else left to the library"
        assert compose["services"][name]["ulimits"]["memlock"] == {"soft": -1, "hard": -1}
        assert compose["services"][name]["shm_size"] == "8gb"


def test_a_gpu_service_has_time_for_its_checkpoint(compose: dict[str, Any]) -> None:
    for path in GPU_RUNS:
        assert load(path).deadlines.shutdown_s <= 360, path.name
    assert {s["stop_grace_period"] for n, s in compose["services"].items() if n.endswith("-gpu")} == {"6m"}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_are_built_in_one_stage_and_run_in_another(kind: str) -> None:
    text = (ROOT / "deploy" / f"Dockerfile.{kind}").read_text(encoding="utf-8")
    _, build, run = text.split("\nFROM ")
    assert "deploy/slim.py" in build
    assert "-m compileall -q -j 0 .venv/lib" in build, "services cannot keep what Python compiles"
    assert "sbom.json" in run
    assert 'org.opencontainers.image.version="' + version() + '"' in run
    assert not any(line.startswith("ENV") and "CUDA_HOME" in line for line in text.splitlines())


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_run_listens_where_compose_and_prometheus_look(path: Path) -> None:
    config = load(path, [])
    ports = scrape_ports()
    assert (config.verifier.host, config.verifier.port) == ("0.0.0.0", ports["verifier"])
    assert (config.rollout.metrics_host, config.rollout.metrics_port) == ("0.0.0.0", ports["rollout"])
    assert (config.learner.metrics_host, config.learner.metrics_port) == ("0.0.0.0", ports["learner"])
    assert config.weights.host == "learner"
    assert config.weights.port > 0
    assert config.redis.url is None, "the address holds a password: it comes from the environment"
    assert config.folder == ROOT / "runs" / config.name, "the volume is mounted at runs/"


def test_the_example_under_compose_differs_only_in_where_things_are() -> None:
    def settings(path: Path) -> dict[str, Any]:
        loaded = tomllib.loads(path.read_text(encoding="utf-8"))
        for room in ("rollout", "learner"):
            for key in ("metrics_host", "metrics_port"):
                loaded[room].pop(key, None)
        loaded.pop("verifier", None)
        for key in ("host", "port"):
            loaded["weights"].pop(key, None)
        for section in (loaded["prompts"], loaded["evaluation"]["prompts"]):
            section["source"]["path"] = Path(section["source"]["path"]).name
        loaded["model"]["path"] = Path(loaded["model"]["path"]).name
        return loaded

    assert settings(ROOT / "deploy/runs/addition-cpu.toml") == settings(ROOT / "examples/addition/addition.toml")


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_take_their_base_as_an_argument_and_do_not_run_as_root(kind: str) -> None:
    lines = (ROOT / "deploy" / f"Dockerfile.{kind}").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("ARG BASE=") for line in lines)
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${BASE} AS build",
        "FROM ${RUNTIME_BASE:-$BASE}",
    ]
    assert lines.index("USER ratchet") < lines.index('ENTRYPOINT ["ratchet"]')
    copies = [line for line in lines if line.startswith("COPY ") and "--from=" not in line]
    copied = [part for line in copies for part in line.split()[1:-1]]
    assert all((ROOT / part).exists() for part in copied)


def test_what_reads_these_files_for_a_living_accepts_them() -> None:
    """Compose and promtool, where they are installed; without them the tests above have to do."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_PASSWORD")}  # none of them needs it
    commands = []
    hosts = ["-f", "deploy/compose.hosts.yml", "--project-directory", ".", "--profile", "head", "--profile", "worker"]
    if shutil.which("docker-compose"):
        commands.append(["docker-compose", "--profile", "cpu", "--profile", "gpu", "config", "-q"])
        commands.append(["docker-compose", *hosts, "config", "-q"])
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode == 0
    ):
        commands.append(["docker", "compose", "--profile", "cpu", "--profile", "gpu", "config", "-q"])
    if shutil.which("amtool"):
        commands.append(["amtool", "check-config", "deploy/alertmanager/alertmanager.yml"])
    if shutil.which("promtool"):
        commands.append(["promtool", "check", "config", "deploy/prometheus/prometheus.yml"])
    for command in commands:
        said = subprocess.run(
            command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert said.returncode == 0, f"{' '.join(command)}: {said.stdout}{said.stderr}"


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_each_profile_has_the_page_of_the_run(compose: dict[str, Any], profile: str) -> None:
    page, learner = (compose["services"][n if profile == "cpu" else f"{n}-gpu"] for n in ("page", "learner"))
    assert page["profiles"] == [profile]
    assert page["image"] == learner["image"]
    assert page["command"][:2] == ["page", learner["command"][1]]
    assert "deploy" not in page, "it needs no GPU"
    given = dict(each.removeprefix("--").split("=", 1) for each in page["command"][2:] if "service" not in each)
    assert page["ports"] == [f"{given['shown'].removeprefix('http://')}:{given['port']}"]
    services = named([each.removeprefix("--service=") for each in page["command"] if each.startswith("--service=")])
    assert {name: urlsplit(url).port for name, url in services.items()} == scrape_ports()


def test_only_the_verifiers_are_let_out_of_the_default_profiles_for_the_sandbox(compose: dict[str, Any]) -> None:
    # YAML's merge takes the first of several mappings that has a key: the order of the list matters.
    loose = {name for name, service in compose["services"].items() if "seccomp=unconfined" in service["security_opt"]}
    assert loose == {"verifier", "verifier-gpu"}


def test_the_file_for_several_hosts_keeps_to_the_same_rules(compose: dict[str, Any]) -> None:
    hosts = yaml.safe_load((ROOT / "deploy" / "compose.hosts.yml").read_text(encoding="utf-8"))
    assert {service["profiles"][0] for service in hosts["services"].values()} == {"head", "worker"}
    for name, service in hosts["services"].items():
        assert service["network_mode"] == "host", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["healthcheck"]["test"], name
        assert "ports" not in service, name
        assert service["secrets"] == ["redis-password"], name
    assert hosts["secrets"] == compose["secrets"]
    redis = " ".join(hosts["services"]["redis"]["command"])
    for setting in ("bind $$RATCHET_HEAD 127.0.0.1", "appendonly yes", "maxmemory-policy noeviction", "requirepass"):
        assert setting in redis
    for room in ("learner", "rollout"):
        environment = hosts["services"][room]["environment"]
        assert environment.keys() >= compose["services"][f"{room}-gpu"]["environment"].keys()
