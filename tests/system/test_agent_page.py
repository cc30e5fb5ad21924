"""The run of docs/agents.md, command by command, with fewer steps: an agent, a real engine, a verifier and a learner."""

import json
import re
import subprocess
from pathlib import Path

from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from tests.system.conftest import ROOT

PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)).splitlines()
STEPS = 3


def test_the_agent_of_the_page_is_trained_from_nothing_to_a_curve(tmp_path: Path, environment: dict[str, str]) -> None:
    for name in (".venv", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("game.py", "agent.toml"):
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    said = ""
    for command in COMMANDS:
        few = f" --set learner.steps={STEPS} --set evaluation.max_prompts=8" if " up " in command else ""
        done = subprocess.run(
            command + few, shell=True, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        said = done.stdout
    assert "agent" in said  # the report
    folder = RunFolder(tmp_path / "runs" / "agent")
    rows = list(read_json_lines(folder.steps))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["pass_rate"] <= 1 for row in rows)
    evaluated = list(read_json_lines(folder.evaluations))
    assert [row["policy_version"] for row in evaluated] == [0, STEPS]
    assert folder.picture.is_file()
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    assert summary["groups"]["dead"] == 0
