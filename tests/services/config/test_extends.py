"""A run file laid over another: what is merged, what is replaced, and what a path in either is relative to."""

from pathlib import Path

import pytest

from services.config.load import load, render
from services.errors import InputError

BASE = """
name = "try"
device = "cpu"
runs_folder = "runs"
[model]
path = "./model"
max_length = 32
dtype = "float32"
[prompts]
source = { type = "jsonl", path = "train.jsonl" }
grader = "math"
[rollout.sampling]
max_tokens = 8
[verifier]
tls_certificate = "tls/certificate.pem"
tls_key = "tls/key.pem"
[verifier.sandbox]
type = "bubblewrap"
python = "env/bin/python"
[learner]
steps = 10
groups_per_step = 4
optimizer = { learning_rate = 1e-5, warmup_steps = 3 }
objective = { type = "opd", beta = 0.5 }
teachers = [{ path = "./teacher" }]
[weights]
type = "gloo"
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "shared" / "base.toml", BASE)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def over(base: Path, text: str = "") -> Path:
    """Write a file that extends `base`, in another folder."""
    return write(base.parents[1] / "mine" / "run.toml", 'extends = "../shared/base.toml"\n' + text)


def test_a_file_that_adds_nothing_is_the_run_that_it_extends(base: Path) -> None:
    assert load(over(base)) == load(base)


def test_tables_are_merged_key_by_key_however_deep(base: Path) -> None:
    config = load(over(base, 'name = "mine"\n[learner]\nsteps = 20\noptimizer = { warmup_steps = 5 }\n'))
    assert (config.name, config.device) == ("mine", "cpu")
    assert (config.learner.steps, config.learner.groups_per_step) == (20, 4)
    assert (config.learner.optimizer.warmup_steps, config.learner.optimizer.learning_rate) == (5, 1e-5)


def test_a_list_replaces_the_list(base: Path) -> None:
    mopd = 'objective = { type = "mopd" }\nteachers = [{ path = "./one" }, { path = "./two" }]'
    config = load(over(base, f"[learner]\n{mopd}\n"))
    assert [Path(teacher.path).name for teacher in config.learner.teachers] == ["one", "two"]


def test_a_table_of_another_type_replaces_the_table(base: Path) -> None:
    assert load(over(base, '[learner]\nobjective = { type = "opd", outcome = 1.0 }')).learner.objective.beta == 0.5  # type: ignore[attr-defined]
    other = load(over(base, '[learner]\nobjective = { type = "grpo" }\nteachers = []')).learner
    assert other.objective.type == "grpo"
    assert (
        load(over(base, '[prompts]\nsource = { type = "huggingface", name = "gsm8k" }')).prompts.each[0].source.type
        == "huggingface"
    )


def test_a_path_is_relative_to_the_file_that_names_it(base: Path) -> None:
    config = load(over(base, '[evaluation.prompts.source]\ntype = "jsonl"\npath = "heldout.jsonl"'))
    shared, mine = base.parent, base.parents[1] / "mine"
    assert config.model.path == str(shared / "model")
    assert config.learner.teachers[0].path == str(shared / "teacher")
    assert config.prompts.source.path == shared / "train.jsonl"  # type: ignore[union-attr]
    assert config.verifier.tls_certificate == shared / "tls" / "certificate.pem"
    assert config.verifier.sandbox.python == shared / "env" / "bin" / "python"
    assert config.runs_folder == shared / "runs"
    assert config.evaluation is not None
    assert config.evaluation.prompts.source.path == mine / "heldout.jsonl"  # type: ignore[union-attr]


def test_the_name_of_a_model_stays_a_name(base: Path) -> None:
    write(base, BASE.replace('"./model"', '"organization/model"'))
    assert load(over(base)).model.path == "organization/model"


def test_files_may_extend_files_that_extend_files(base: Path) -> None:
    middle = write(
        base.parent / "deeper" / "middle.toml", 'extends = "../base.toml"\n[learner]\nsteps = 20\nmax_lag = 7'
    )
    top = write(base.parents[1] / "top.toml", 'extends = "shared/deeper/middle.toml"\n[learner]\nsteps = 30')
    config = load(top)
    assert (config.learner.steps, config.learner.max_lag, config.learner.groups_per_step) == (30, 7, 4)
    assert config.prompts.source.path == base.parent / "train.jsonl"  # type: ignore[union-attr]
    assert load(middle).learner.steps == 20


def test_an_override_goes_before_all_of_them(base: Path) -> None:
    assert load(over(base, "[learner]\nsteps = 20"), ["learner.steps=30"]).learner.steps == 30


def test_what_is_rendered_extends_nothing(base: Path, tmp_path: Path) -> None:
    config = load(over(base))
    assert "extends =" not in render(config)
    assert load(write(tmp_path / "elsewhere" / "resolved.toml", render(config))) == config


def test_a_base_that_is_missing_is_named_with_who_asked_for_it(base: Path) -> None:
    base.unlink()
    with pytest.raises(InputError, match=r"no configuration at .*base\.toml, which .*run\.toml extends"):
        load(over(base))


def test_a_circle_is_an_error_that_names_the_chain(base: Path) -> None:
    run = over(base)
    write(base, 'extends = "../mine/run.toml"\n' + BASE)
    with pytest.raises(InputError, match=r"in a circle: .*run\.toml -> .*base\.toml -> .*run\.toml"):
        load(run)
    with pytest.raises(InputError, match="in a circle"):
        load(write(base, 'extends = "base.toml"'))


@pytest.mark.parametrize("value", ['["a.toml", "b.toml"]', "3", "{ path = 'a.toml' }"])
def test_what_is_extended_is_the_path_of_one_file(base: Path, value: str) -> None:
    with pytest.raises(InputError, match="is not the path of one TOML file"):
        load(write(base.parent / "run.toml", f"extends = {value}"))


def test_a_base_that_is_not_toml_is_named_with_who_asked_for_it(base: Path) -> None:
    run = over(write(base, "name = "))
    with pytest.raises(InputError, match=r"run\.toml -> .*base\.toml is not valid TOML"):
        load(run)


def test_a_wrong_setting_of_the_base_is_named_as_any_other(base: Path) -> None:
    write(base, BASE.replace("groups_per_step", "group_per_step"))
    with pytest.raises(InputError, match='did you mean "groups_per_step"'):
        load(over(base))
