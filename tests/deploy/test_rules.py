"""Alerts name metrics that exist, fire when they should and only then, and each is explained in the runbook."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring import ROOT, RULES, known, names_in

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
TESTS = sorted((ROOT / "tests/deploy/rules").glob("*.yml"))


def rules(file: str) -> list[dict[str, Any]]:
    loaded = yaml.safe_load((RULES / file).read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def sections() -> dict[str, str]:
    """Heading of a section of the runbook -> what it says."""
    page = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (Ratchet\w+)$", page, flags=re.MULTILINE)[1:]
    return {name: text.partition("\n## ")[0] for name, text in zip(parts[::2], parts[1::2], strict=True)}


def test_the_names_in_a_query_are_found() -> None:
    query = 'sum by (run) (rate(a_total{x="b"}[5m])) / on (run) group_left () max by (run) (c:d offset 5m) > 0 unless e'
    assert names_in(query) == {"a_total", "c:d", "e"}


@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_every_rule_reads_metrics_that_exist(file: str) -> None:
    for rule in rules(file):
        assert names_in(rule["expr"]), rule
        assert names_in(rule["expr"]) <= known(), f"{rule}: no service exports {names_in(rule['expr']) - known()}"


def test_every_alert_says_how_bad_what_and_where_to_read_on() -> None:
    assert len(ALERTS) >= 15
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        said = rule["annotations"]
        assert set(said) == {"summary", "description", "runbook_url"}, name
        assert "$value" in said["summary"] + said["description"] or re.search(r"== [01]$", rule["expr"]), name
        assert said["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_what_an_alert_says_uses_labels_that_it_has() -> None:
    for name, rule in ALERTS.items():
        expr = rule["expr"]
        has = {label.strip() for inside in re.findall(r"by \(([^)]*)\)", expr) for label in inside.split(",")}
        has |= {"run"} if "run:" in expr else set()
        if expr.startswith(("up{", "ratchet_")):  # not aggregated
            has |= {"run", "job", "instance"}
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert used <= has, name


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    found = sections()
    assert list(found) == list(ALERTS)
    for name, text in found.items():
        for part in ("**What it means.**", "**How to look.**", "**What to do.**"):
            assert part in text, f"{name} lacks {part}"


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    text = (ROOT / "tests/deploy/rules/alerts.yml").read_text(encoding="utf-8")
    for name in ALERTS:
        assert f"# {name} fires." in text
        assert f"# {name} is silent: " in text
        assert f"""labels: '{{alertname="{name}"}}'""" in text


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_agrees(path: Any) -> None:
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_promtool_says_on_the_page_is_of_these_rules() -> None:
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    for file in ("alerts.yml", "recording.yml"):
        said = f"Checking deploy/prometheus/rules/{file}\n  SUCCESS: {len(rules(file))} rules found\n"
        assert page.count(said) == 2, "check config and check rules say it"
