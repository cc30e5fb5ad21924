"""The Helm chart, rendered by Helm and held against Kubernetes' own schemas and the settings of the services."""

import itertools
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from services.config.load import load
from services.entry import BAD_INPUT
from services.page.__main__ import named

ROOT = Path(__file__).parents[2]
HELM = str(Path(sys.executable).with_name("helm"))
CHART = ROOT / "deploy/k8s"
RUN = ROOT / "deploy/runs/gsm8k-2x80gb.toml"
GIVEN = ("--set-file", f"run.toml={RUN}", "--set", "redis.existingSecret=redis-password")
VARIANTS = {
    "default": (),
    "autoscaled": ("--set", "rollout.autoscaling.enabled=true,verifier.autoscaling.enabled=true"),
    "several hosts": ("--set", "learner.nodes=2,learner.gpus=8,rollout.replicas=8"),
    "watched": ("--set", "monitoring.podMonitors=true,monitoring.rules=true,monitoring.labels.release=prometheus"),
    "own Redis": ("--set", "redis.enabled=false"),
    "own volume": ("--set", "runs.existingClaim=lake", "--set", "image.pullSecrets={registry}"),
    "closed": ("--set", "networkPolicy.allowInternet=false,verifier.codeSandbox=false"),
    "open": ("--set", "networkPolicy.enabled=false"),
    "without page": ("--set", "page.enabled=false"),
    "CPU": ("--set", "learner.gpus=0,rollout.gpus=0,image.tag=cpu"),
    "variables": ("--set", "environment.NCCL_DEBUG=INFO", "--set", "environmentFromSecrets={hub}"),
}
OF_OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds whose schemas come with their operators, not with Kubernetes."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


@cache
def rendered(variant: str) -> tuple[dict[str, Any], ...]:
    done = helm("template", "demo", str(CHART), "--namespace", "training", *GIVEN, *VARIANTS[variant])
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def only(variant: str, kind: str, ending: str) -> dict[str, Any]:
    [found] = [one for one in rendered(variant) if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]
    return found


def pods(variant: str) -> dict[str, dict[str, Any]]:
    """Component -> the template of its pods."""
    templates = [one["spec"]["template"] for one in rendered(variant) if "template" in one.get("spec", {})]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}


def refused(*arguments: str) -> str:
    done = helm("template", "demo", str(CHART), *arguments)
    assert done.returncode != 0
    return done.stderr


@cache
def validate(text: str, version: str) -> None:
    """Raise if the object, as JSON, is not what Kubernetes takes; looked at once, because most are the same in every variant."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_what_kubernetes_takes(variant: str, version: str) -> None:
    for one in rendered(variant):
        if one["kind"] not in OF_OPERATORS:
            validate(json.dumps(one, sort_keys=True), version)


def test_helm_finds_nothing_to_say() -> None:
    done = helm("lint", "--strict", str(CHART), *GIVEN)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_services_take_the_settings_that_the_chart_gives(variant: str, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text(only(variant, "ConfigMap", "-run")["data"]["run.toml"], encoding="utf-8")
    for room in ("learner", "rollout", "verifier"):
        [container] = pods(variant)[room]["spec"]["containers"]
        path, *options = container["args"]
        assert path == "/etc/ratchet/run.toml"
        assert options[::2] == ["--set"] * (len(options) // 2)
        config = load(run, options[1::2])
        assert str(config.folder).startswith("/ratchet/runs/")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        settings = {
            "learner": config.learner.metrics_port,
            "rollout": config.rollout.metrics_port,
            "verifier": config.verifier.port,
        }
        assert ports["metrics"] == settings[room]
        if room == "learner":
            assert ports["weights"] == config.weights.port


def test_replicas_find_the_learner_by_a_name_that_exists() -> None:
    service, job = only("several hosts", "Service", "-learner"), only("several hosts", "Job", "-learner")
    [container] = job["spec"]["template"]["spec"]["containers"]
    address = f"{job['metadata']['name']}-0.{service['metadata']['name']}"  # pod 0 of an indexed Job, in its subdomain
    assert f"weights.host={address}" in container["args"]
    assert f"--master-addr={address}" in container["command"]
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert {"--nnodes=2", "--nproc-per-node=8", "--node-rank=$(JOB_COMPLETION_INDEX)"} <= set(container["command"])


def test_a_wrong_setting_ends_the_run_and_an_outage_does_not() -> None:
    rules = only("default", "Job", "-learner")["spec"]["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"] == [[BAD_INPUT]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_container_may_more_than_it_needs(variant: str) -> None:
    for component, template in pods(variant).items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            sandbox = component == "verifier" and variant != "closed"
            assert security["seccompProfile"] == {"type": "Unconfined" if sandbox else "RuntimeDefault"}


def test_gpus_are_asked_for_where_they_are_used() -> None:
    def gpus(variant: str) -> dict[str, str | None]:
        return {
            room: template["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu")
            for room, template in pods(variant).items()
        }

    assert gpus("several hosts") == {"learner": "8", "rollout": "1", "verifier": None, "redis": None, "page": None}
    assert set(gpus("CPU").values()) == {None}


def test_the_number_of_replicas_is_left_to_what_scales_them() -> None:
    assert "replicas" not in only("autoscaled", "Deployment", "-rollout")["spec"]
    assert only("autoscaled", "ScaledObject", "-rollout")["spec"]["scaleTargetRef"]["name"] == "demo-ratchet-rollout"
    assert only("autoscaled", "HorizontalPodAutoscaler", "-verifier")["spec"]["maxReplicas"] == 8
    assert only("default", "Deployment", "-rollout")["spec"]["replicas"] == 1


def test_jobs_of_metrics_have_the_names_that_prometheus_has_under_compose() -> None:
    under_compose = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    rooms = {one["job_name"] for one in under_compose["scrape_configs"]} & {"learner", "rollout", "verifier"}
    found = {
        relabeling["replacement"]
        for one in rendered("watched")
        if one["kind"] == "PodMonitor"
        for relabeling in one["spec"]["podMetricsEndpoints"][0]["relabelings"]
    }
    assert found == rooms == {"learner", "rollout", "verifier"}


def test_rules_are_those_of_the_files() -> None:
    files = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    assert only("watched", "PrometheusRule", "-ratchet")["spec"]["groups"] == groups
    assert not [one for one in rendered("default") if one["kind"] == "PrometheusRule"]


def test_the_page_is_of_the_run_and_asks_services_that_exist(tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text(only("watched", "ConfigMap", "-run")["data"]["run.toml"], encoding="utf-8")
    [container] = pods("watched")["page"]["spec"]["containers"]
    path, *options = container["args"]
    sets = [value for name, value in itertools.pairwise(options) if name == "--set"]
    folders = {
        str(load(run, sets).folder),
        str(load(run, pods("watched")["learner"]["spec"]["containers"][0]["args"][2::2]).folder),
    }
    assert path == "/etc/ratchet/run.toml"
    assert len(folders) == 1
    asked = named([one.removeprefix("--service=") for one in options if one.startswith("--service=")])
    hosts = {str(urlsplit(url).hostname).rpartition(".")[2] for url in asked.values()}
    assert hosts == {"demo-ratchet-learner", "demo-ratchet-rollout", "demo-ratchet-verifier"}
    assert hosts <= {one["metadata"]["name"] for one in rendered("watched") if one["kind"] == "Service"}
    assert only("watched", "NetworkPolicy", "-page")["spec"]["ingress"] == []
    assert "page" not in pods("without page")


def test_no_password_is_in_what_is_rendered() -> None:
    assert not [one for one in rendered("default") if one["kind"] == "Secret"]
    text = json.dumps([one for one in rendered("default") if one["kind"] != "ConfigMap"])
    assert "redis://:$(REDIS_PASSWORD)@demo-ratchet-redis:6379/0" in text


def test_what_is_missing_or_misspelled_is_named() -> None:
    assert "--set-file run.toml=FILE" in refused("--set", "redis.existingSecret=s")
    assert "redis.existingSecret: name a Secret" in refused("--set-file", f"run.toml={RUN}")
    assert "repicas" in refused(*GIVEN, "--set", "rollout.repicas=3")
    assert "learner.nodes" in refused(*GIVEN, "--set", "learner.nodes=0")
    assert "run.set.0" in refused(*GIVEN, "--set", "run.set={learner.steps}")


def test_the_schema_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def same(values: Any, known: Any, at: str) -> None:
        if isinstance(values, dict) and values and "properties" in known:
            assert set(values) == set(known["properties"]) - ({"global"} if not at else set()), at
            for key, value in values.items():
                same(value, known["properties"][key], f"{at}.{key}")

    same(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")), schema, "")
