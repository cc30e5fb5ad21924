"""Dashboards are what their boards say, read metrics that exist, and explain every panel; Grafana is told where they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.monitoring import ROOT, dashboards, known, names_in, panels, queries

BOARDS = dashboards()
GRAFANA = ROOT / "deploy/grafana"


def test_the_files_are_what_the_boards_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.grafana", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("board", "panel", "query"), list(queries()))
def test_every_query_reads_metrics_that_exist(board: str, panel: str, query: str) -> None:
    assert names_in(query), query
    assert names_in(query) <= known(), f"nothing exports {names_in(query) - known()}; say it with docs/metrics.md"


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_a_unit_a_sentence_and_a_name_of_its_own(name: str) -> None:
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    assert len(titles) == len(set(titles)) >= 9
    for panel in panels(BOARDS[name]):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert re.match(r"^[A-Z0-9a-z_].*\.$", panel["description"]), f"{panel['title']}: {panel['description']!r}"
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_can_be_filtered_and_leads_to_the_others(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == name
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "run"} <= variables
    used = set(re.findall(r"\$(run|job|instance)\b", " ".join(query for at, _, query in queries() if at == name)))
    assert used == variables - {"datasource"}, "a variable that changes nothing misleads"
    [link] = board["links"]
    assert (link["tags"], link["includeVars"], link["keepTime"]) == (["ratchet"], True, True)
    assert board["tags"] == ["ratchet"]


def test_the_page_on_dashboards_has_each_of_them() -> None:
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    for board in BOARDS.values():
        assert f"## {board['title'].removeprefix('Ratchet: ').capitalize()}" in page
        assert board["description"] in page
    assert re.search(rf"\b{len(list(queries()))} queries\b", page), (
        "the table of results is of other boards: make it again"
    )


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/ratchet.yml").read_text(encoding="utf-8"))[
        "providers"
    ]
    assert Path(provider["options"]["path"]).is_absolute()
