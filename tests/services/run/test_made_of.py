"""A change of what a run is made of is found and named; what may change freely is not part of it."""

from pathlib import Path
from typing import Any

import pytest

from services.config import RunConfig
from services.config.load import load
from services.datasets.dataset import Problem
from services.errors import InputError
from services.run import made_of
from services.run.made_of import WHOLE_BYTES, MadeOf
from tests.services.config.test_load import SMALLEST

PROBLEMS = [Problem(row=row, prompt=f"{row}+1=", reference=f"{row + 1}", grader="exact") for row in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    for model in ("model", "other"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / model / "tokenizer.json").write_text("{}", encoding="utf-8")
        (tmp_path / model / "model.safetensors").write_bytes(model.encode() * 100)
    return tmp_path


def config(folder: Path, *overrides: str) -> RunConfig:
    return load(folder / "run.toml", [f"runs_folder={folder}/runs", *overrides])


def ingredients(folder: Path, *overrides: str, problems: list[Problem] = PROBLEMS) -> MadeOf:
    return made_of.made_of(config(folder, *overrides), problems, None)


def changed(before: MadeOf, now: MadeOf, *accepted: str) -> str:
    """What is said of the difference; empty: nothing."""
    try:
        made_of.check(before, now, accepted, origin="step-00000002")
    except InputError as fault:
        return str(fault)
    return ""


@pytest.mark.parametrize(
    ("override", "ingredient"),
    [
        ("model.path=other", "model.path"),
        ("seed=3", "seed"),
        ("prompts.system_prompt=Be brief.", "prompts.template"),
        ("prompts.template=none", "prompts.template"),
        ("prompts.chat_template_kwargs={enable_thinking = false}", "prompts.template"),
        ("prompts.shuffle=false", "prompts.shuffle"),
        ('learner.teachers=[{path = "other"}]', None),
        ("learner.steps=99", None),
        ("learner.optimizer.learning_rate=0.5", None),
        ("rollout.replicas=4", None),
        ("deadlines.redis_s=5", None),
        ("verifier.processes=7", None),
    ],
)
def test_a_setting_that_names_an_ingredient_is_compared_and_no_other(
    folder: Path, override: str, ingredient: str | None
) -> None:
    overrides = [override, "learner.objective.type=opd"] if "teachers" in override else [override]
    said = changed(ingredients(folder), ingredients(folder, *overrides))
    assert (f"  {ingredient}: " in said) == (ingredient is not None)
    assert said.count("\n  ") == (ingredient is not None)


def test_the_message_says_both_values_and_the_ways_out(folder: Path) -> None:
    said = changed(ingredients(folder), ingredients(folder, "model.path=other", "seed=3"))
    assert f"model.path: was {folder}/model, is now {folder}/other" in said
    assert "seed: was 0, is now 3" in said
    assert "Choose another name" in said
    assert "--set learner.checkpoint.accept_changed=model.path,seed" in said


def test_what_is_accepted_may_differ(folder: Path) -> None:
    before, now = ingredients(folder), ingredients(folder, "model.path=other", "seed=3")
    accepted = config(folder, "learner.checkpoint.accept_changed=model.path,seed").learner.checkpoint.accept_changed
    assert accepted == ("model.path", "seed")
    assert changed(before, now, *accepted) == ""
    assert "seed" in changed(before, now, "model.path")


def test_adapters_go_on_beside_no_other_model_even_if_it_is_accepted(folder: Path) -> None:
    before, now = ingredients(folder), ingredients(folder, "model.path=other")
    full, lora = config(folder), config(folder, "learner.lora.rank=4")
    for one in (full, lora):
        needed = made_of.needed_again(one)
        made_of.check(before, before, (), origin="step-00000002", needed=needed)
    made_of.check(before, now, ("model.path",), origin="step-00000002", needed=made_of.needed_again(full))
    with pytest.raises(
        InputError, match=r"step-00000002 holds adapters alone .*\n  model\.path: was .*model, is now .*other\n"
    ):
        made_of.check(before, now, ("model.path",), origin="step-00000002", needed=made_of.needed_again(lora))


def test_a_name_that_is_none_of_them_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"learner\.checkpoint\.accept_changed"):
        config(folder, "learner.checkpoint.accept_changed=model")


@pytest.mark.parametrize(
    ("file", "ingredient"), [("model.safetensors", "model.path"), ("tokenizer.json", "prompts.template")]
)
def test_a_file_of_the_model_that_changed_under_its_name_is_found(folder: Path, file: str, ingredient: str) -> None:
    before = ingredients(folder)
    (folder / "model" / file).write_bytes(b"another")
    said = changed(before, ingredients(folder))
    assert f"  {ingredient}: " in said
    assert "has changed (digest" in said


def test_the_same_model_elsewhere_is_the_same_model(folder: Path) -> None:
    before = ingredients(folder)
    (folder / "model").rename(folder / "moved")
    assert changed(before, ingredients(folder, "model.path=moved")) == ""


def test_other_weights_of_a_large_file_are_found_without_reading_all_of_it(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    with file.open("wb") as opened:
        opened.truncate(WHOLE_BYTES + 5000)
    before = ingredients(folder)
    with file.open("r+b") as opened:
        opened.seek(-10, 2)
        opened.write(b"another")
    assert "model.path" in changed(before, ingredients(folder))


@pytest.mark.parametrize(
    ("change", "ingredient"),
    [
        ({"prompt": "5+5="}, "prompts.source"),
        ({"reference": "11"}, "prompts.source"),
        ({"grader": "math"}, "prompts.grader"),
        ({"options": {"strip": False}}, "prompts.grader"),
    ],
)
def test_one_row_that_changed_is_found(folder: Path, change: dict[str, Any], ingredient: str) -> None:
    fields: dict[str, Any] = {"row": 2, "prompt": "2+1=", "reference": "3", "grader": "exact", "options": {}} | change
    said = changed(ingredients(folder), ingredients(folder, problems=[*PROBLEMS[:2], Problem(**fields)]))
    assert f"  {ingredient}: " in said


def test_another_version_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ingredients(folder)
    monkeypatch.setattr(made_of, "installed_version", lambda name: "9.9" if name == "transformers" else None)
    assert "transformers 9.9" in changed(before, ingredients(folder))


def test_an_evaluation_may_come_and_go_but_not_change(folder: Path) -> None:
    with_one = config(folder, 'evaluation.prompts.source={type = "jsonl", path = "held.jsonl"}')
    before = made_of.made_of(with_one, PROBLEMS, PROBLEMS[:2])
    assert changed(before, ingredients(folder)) == ""
    assert changed(ingredients(folder), before) == ""
    assert "evaluation.prompts" in changed(before, made_of.made_of(with_one, PROBLEMS, PROBLEMS[1:]))


def test_a_checkpoint_of_a_version_that_did_not_say_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"schema": 1}', encoding="utf-8")
    assert made_of.saved_in(tmp_path) == {}
