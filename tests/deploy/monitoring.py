"""What Prometheus can know: the names that services export, read from the definitions, and the names in a query."""

import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
RULES = ROOT / "deploy/prometheus/rules"
OF_PROMETHEUS = {
    "up",
    "scrape_duration_seconds",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "ALERTS",
}
"""What it sets itself, and what its client library sets in every service."""
WORDS = re.compile(
    r'"[^"]*"|\'[^\']*\'|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|(?<!\w)[a-zA-Z_:][\w:]*'
)
AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "quantile"}
KEYWORDS = AGGREGATIONS | {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "on",
    "group_left",
    "group_right",
    "inf",
    "Inf",
    "NaN",
}


@cache
def families() -> dict[str, str]:
    """Ratchet's metrics and their types, as docs/metrics.md has them; tests/test_reference.py holds that to the code."""
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(ratchet_\w+)` \| (\w+) \|", page, re.MULTILINE))


@cache
def of_vllm() -> set[str]:
    """The metrics of the vLLM that is installed, as its source names them, with every ending that they may be exported by."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "v1"
    named = {
        name
        for part in ("metrics", "spec_decode")
        for path in (folder / part).rglob("*.py")
        for name in re.findall(r'"(vllm:\w+)"', path.read_text(encoding="utf-8"))
    }
    return {name + ending for name in named for ending in ("", "_total", "_bucket", "_sum", "_count")}


@cache
def recorded() -> set[str]:
    """The names that the recording rules make."""
    rules = yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))
    return {rule["record"] for group in rules["groups"] for rule in group["rules"]}


@cache
def known() -> set[str]:
    """Every name that a query may use."""
    exported = set(OF_PROMETHEUS)
    for name, kind in families().items():
        exported |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return exported | of_vllm() | recorded()


def names_in(query: str) -> set[str]:
    """The metrics that a PromQL query reads."""
    found = set()
    for match in WORDS.finditer(query):
        word = match[0]
        if not re.fullmatch(r"[a-zA-Z_:][\w:]*", word) or word in KEYWORDS:
            continue
        if not query[match.end() :].lstrip().startswith("("):  # then it is a function or an aggregation
            found.add(word)
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard that show something, without its rows."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels", ()) if panel["type"] == "row" else (panel,)


def dashboards() -> dict[str, dict[str, Any]]:
    """File name without its ending -> the dashboard."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries() -> Iterator[tuple[str, str, str]]:
    """Every query of every panel: (dashboard, panel, PromQL)."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield name, panel["title"], target["expr"]
