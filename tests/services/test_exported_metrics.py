"""What the three rooms export follows Prometheus' rules for names, by promtool where it is installed and by our own check."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.monitoring import families

ROOT = Path(__file__).parents[2]
ROOMS = {
    "learner": ("learner.__main__",),
    "rollout": ("rollout.replica",),
    "verifier": ("verifier.service",),
}
"""Room -> what its process imports before it serves /metrics; rollout/__main__.py imports vLLM, whose metrics are not ours."""
WRONG_UNITS = re.compile(r"_(ms|milliseconds|minutes|hours|percent|kb|mb|gb|mib|gib|kilobytes|megabytes)(_|$)")


@pytest.fixture(scope="module", params=ROOMS)
def page(request: pytest.FixtureRequest) -> str:
    """What /metrics of a room answers, of our own metrics."""
    imports = ", ".join(("services.exposition", *ROOMS[request.param]))
    program = f"import {imports}; print(services.exposition.metrics_page('r').decode())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    lines = re.findall(r"^(?:# (?:HELP|TYPE) )?ratchet_.*$", done.stdout, re.MULTILINE)
    return "\n".join(lines) + "\n"


def test_names_have_base_units_and_counters_alone_end_in_total(page: str) -> None:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\w+) (.+)$", page, re.MULTILINE))
    assert len(kinds) > 10
    assert kinds.keys() == helps.keys()
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not WRONG_UNITS.search(name), name
        assert families()[name] == kind, "docs/metrics.md has it"


def test_every_sample_names_its_run_and_nothing_unbounded(page: str) -> None:
    labels = set()
    for name, inside in re.findall(r"^(\w+)\{([^}]*)\}", page, re.MULTILINE):
        assert 'run="r"' in inside, name
        labels |= set(re.findall(r"(\w+)=", inside))
    unbounded = {"group_id", "prompt", "replica_id", "entry_id", "step", "row", "path", "detail", "incarnation"}
    assert not labels & unbounded
    assert len(page.splitlines()) < 1500


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_say(page: str) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
