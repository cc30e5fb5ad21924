"""The objective of examples/objective: installed as a third party's package is, and used by the command and a learner step."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "objective"
PAGE = (ROOT / "docs" / "writing-an-objective.md").read_text(encoding="utf-8")
PACKAGE_PAGE = PAGE[PAGE.index("## In a package of your own") :]
BLOCKS = dict(re.findall(r"^```\w+ ([\w./-]+)\n(.*?)^```$", PACKAGE_PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```$", PACKAGE_PAGE, flags=re.MULTILINE | re.DOTALL)).splitlines()
UV = Path(sys.executable).parent / "uv"
STEP = """
import torch
from learner.batch.step_batch import assemble
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

def moved(cap, rows):
    config = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 3, "row_tokens": 24, "rows_per_micro_batch": rows,
        "mini_batches": 3, "objective": {"type": "topr", "cap": cap}})
    engine = BigramEngine()
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.25]) for i in range(3)], 0, config)
    report = learner_step(engine, batch, config, learning_rate=2.0)
    assert (report.skipped, report.optimizer_steps) == (None, 3)
    return engine.logits - BigramEngine().logits

assert moved(1.0, 9).norm() > 0.1
assert torch.allclose(moved(1.0, 1), moved(1.0, 9), atol=1e-6), "it depends on how the step is cut up"
assert not torch.allclose(moved(1.0, 9), moved(0.1, 9), atol=1e-4), "its setting does not matter"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its entry point, built from a copy: building writes beside the sources."""
    folder = tmp_path_factory.mktemp("objective")
    ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)
    target = folder / "installed"
    how = ["--no-deps", "--no-build-isolation", "--offline", "--python", sys.executable, "--target", str(target)]
    command = [str(UV), "pip", "install", *how, str(source)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page's commands are run: it has the page's run file."""
    (tmp_path / "topr.toml").write_text(BLOCKS["topr.toml"], encoding="utf-8")
    for name in (".venv", "examples", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, shell=True, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_files_on_the_page_are_those_of_the_example() -> None:
    shown = {
        "ratchet_objective_topr/settings.py", "ratchet_objective_topr/functions.py", "pyproject.toml", "tests/test_topr.py",
    }  # fmt: skip
    assert set(BLOCKS) == {*shown, "topr.toml"}
    for name in shown:
        assert BLOCKS[name] == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_the_commands_on_the_page(environment: dict[str, str], folder: Path) -> None:
    """Installing is done above, where it leaves this environment as it was."""
    assert COMMANDS[0] == ".venv/bin/uv pip install --no-deps examples/objective"
    tests, config = (run(command, folder, environment) for command in COMMANDS[1:])
    assert tests.returncode == 0, tests.stdout
    assert "passed" in tests.stdout
    assert config.returncode == 0, config.stderr
    assert 'type = "topr"\ncap = 0.5' in config.stdout
    assert 'baseline = "mean"' in config.stdout, "what it was published with"


def test_a_learner_step_uses_it(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", STEP], env=environment, check=True, timeout=120)


def test_reading_its_settings_imports_no_torch(environment: dict[str, str], folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from services.config.load import load; "
        "assert load(Path('topr.toml')).learner.objective.cap == 0.5; print('torch' in sys.modules)"
    )
    result = run(f'{sys.executable} -c "{program}"', folder, environment)
    assert result.stdout.strip() == "False", result.stderr


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ("objective.capp=0.5", 'learner.objective.capp: no such key; did you mean "cap"?'),
        ("objective.cap=2.0", "learner.objective.cap = 2.0: input should be less than or equal to 1"),
        ("objective.type=topp", 'no objective is called "topp"; did you mean "topr"? There are acpo,'),
        ("importance.cap=2.0", 'learner.objective.type = "topr" weighs for itself'),
    ],
)
def test_a_wrong_setting_is_named_as_ours_are(
    environment: dict[str, str], folder: Path, overrides: str, complaint: str
) -> None:
    result = run(f".venv/bin/ratchet config topr.toml --set learner.{overrides}", folder, environment)
    assert result.returncode == 2
    assert complaint in result.stderr


def beside(tmp_path: Path, environment: dict[str, str], name: str, value: str, **modules: str) -> dict[str, str]:
    """An environment with one more package, which brings the objective `name`."""
    package = tmp_path / "packages" / "rival-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n", encoding="utf-8")
    (package / "entry_points.txt").write_text(f"[ratchet.objectives]\n{name} = {value}\n", encoding="utf-8")
    for module, text in modules.items():
        (package.parent / f"{module}.py").write_text(text, encoding="utf-8")
    return environment | {"PYTHONPATH": f"{package.parent}{os.pathsep}{environment['PYTHONPATH']}"}


def test_a_name_that_two_packages_claim_is_refused(environment: dict[str, str], folder: Path) -> None:
    both = beside(folder, environment, "topr", "elsewhere:Topr")
    result = run(".venv/bin/ratchet config topr.toml", folder, both)
    assert result.returncode == 2
    assert 'the objective "topr" is claimed by rival (elsewhere:Topr) and by ratchet-objective-topr (' in result.stderr
    other = run(".venv/bin/ratchet config topr.toml --quick --set learner.objective={type=\\'grpo\\'}", folder, both)
    assert other.returncode == 0


SETTINGS = """
from typing import Literal
from services.config.objectives.base import ObjectiveSettings
class Settings(ObjectiveSettings):
    implementation = "rival_functions:OBJECTIVE"
    type: Literal["rival"] = "rival"
"""


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        ({}, "comes from rival (rival_settings:Settings), which cannot be imported: ModuleNotFoundError"),
        (
            {"rival_settings": "1 / 0"},
            "comes from rival (rival_settings:Settings), which cannot be imported: ZeroDivisionError",
        ),
        (
            {"rival_settings": SETTINGS},
            "has its functions at rival_functions:OBJECTIVE (rival_settings.Settings), which",
        ),
        (
            {"rival_settings": SETTINGS, "rival_functions": "import no_such_module"},
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            {
                "rival_settings": SETTINGS,
                "rival_functions": "from learner.objective.base import Objective\n"
                "OBJECTIVE = Objective(lambda tokens, settings: tokens.logp.sum())",
            },
            'the objective "rival" does not work on made-up tokens: surrogate must be float32 of shape [T] = [5]',
        ),
    ],
)
def test_a_package_that_does_not_work_is_named_before_anything_starts(
    environment: dict[str, str], folder: Path, modules: dict[str, str], complaint: str
) -> None:
    broken = beside(folder, environment, "rival", "rival_settings:Settings", **modules)
    command = ".venv/bin/ratchet config topr.toml --set learner.objective={type=\\'rival\\'}"
    result = run(command, folder, broken)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
