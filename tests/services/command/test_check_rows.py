"""Every row is looked at before a run; those that cannot be used are counted, named, and left out when that is asked for."""

import json
import shutil
import tomllib
from functools import partial
from pathlib import Path

import pytest
import tomli_w

from services.command.check_rows import CheckedRows, check_datasets, check_rows
from services.config import RunConfig
from services.config.load import load
from services.datasets.rendering import RenderedProblems, Renderer
from services.errors import InputError
from services.run.left_out import left_out, write_left_out

GOOD = {"prompt": "1+1=", "reference": "2"}
TOO_LONG = {"prompt": "1+" * 20 + "1=", "reference": "21"}
UNREADABLE = {"prompt": "1+1="}
UNGRADABLE = {"prompt": "1+1=", "reference": "two"}
BEYOND = {"prompt": "1+1!", "reference": "2"}


def asked(folder: Path, *rows: dict[str, str], skip: bool = False) -> RunConfig:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load(folder / "run.toml", ["prompts.skip_unreadable=true"] if skip else [])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (TOO_LONG, r"line 300: the prompt has 42 tokens, and model\.max_length less .* leaves 24"),
        (UNREADABLE, r"line 300 has no column reference"),
        (UNGRADABLE, r"line 300: grader number: .*two"),
        (BEYOND, r"line 300: the prompt has the token '!' with id 14, and the model in .* has rows for 14 ids"),
    ],
)
def test_one_row_of_three_hundred_is_found(small_data: Path, row: dict[str, str], complaint: str) -> None:
    rows = [*([GOOD] * 299), row]
    with pytest.raises(InputError, match=rf"prompts: .*train\.jsonl {complaint}.*With prompts\.skip_unreadable = true"):
        check_rows(asked(small_data, *rows))
    (found,), (warning,) = check_rows(asked(small_data, *rows, skip=True))
    assert len(found.usable) == 299
    assert "prompts: 1 rows are left out, 299 used. The first: " in warning


def test_the_first_ten_are_named_and_all_are_counted(small_data: Path) -> None:
    with pytest.raises(InputError) as refused:
        check_rows(asked(small_data, GOOD, *([TOO_LONG] * 12), UNGRADABLE, UNREADABLE))
    said = str(refused.value).splitlines()
    assert said[0] == "prompts: 14 of 15 rows cannot be used, the first 10:"
    assert len(said) == 11


def test_rows_none_of_which_can_be_used_are_no_dataset(small_data: Path) -> None:
    with pytest.raises(InputError) as refused:
        check_rows(asked(small_data, UNGRADABLE, TOO_LONG, skip=True))
    assert "2 of 2 rows cannot be used" in str(refused.value)
    assert "skip_unreadable" not in str(refused.value)


def test_an_evaluation_is_named_by_its_own_setting(small_data: Path) -> None:
    config = asked(small_data, GOOD)
    held_out = 'evaluation.prompts={source = {type = "jsonl", path = "nowhere.jsonl"}, template = "none"}'
    with pytest.raises(
        InputError, match=r"nowhere\.jsonl: No such file or directory; check evaluation\.prompts\.source\.path"
    ):
        check_rows(load(small_data / "run.toml", [held_out]))
    assert config.evaluation is None


def used(config: RunConfig, noted: Path) -> list[int]:
    """The rows that the learner trains on."""
    rendered = RenderedProblems(
        config.prompts.each[0],
        Renderer(config.model.path),
        max_prompt_tokens=24,
        leave_out=partial(left_out, noted, "prompts"),
    )
    return [problem.row for problem in rendered.problems]


def test_the_learner_leaves_out_what_the_check_has_left_out(small_data: Path) -> None:
    config = asked(small_data, GOOD, TOO_LONG, UNGRADABLE, UNREADABLE, BEYOND, GOOD, skip=True)
    (found,), _ = check_rows(config)
    noted = small_data / "left_out.json"
    write_left_out(noted, {"prompts": (found.problems, found.ungradable)})
    assert used(config, noted) == [problem.row for problem in found.usable] == [0, 5]


def test_what_was_left_out_of_another_dataset_is_not_left_out_of_this(small_data: Path) -> None:
    noted = small_data / "left_out.json"
    (found,), _ = check_rows(asked(small_data, GOOD, UNGRADABLE, skip=True))
    write_left_out(noted, {"prompts": (found.problems, found.ungradable)})
    assert used(asked(small_data, GOOD, GOOD, skip=True), noted) == [0, 1]
    write_left_out(noted, {"prompts": (found.problems, set())})
    assert not noted.exists()


def test_nothing_is_said_of_rows_that_are_fine() -> None:
    assert CheckedRows("prompts", []).told() == ""


def test_held_out_rows_that_are_trained_on_are_a_warning(small_data: Path) -> None:
    asked(small_data, GOOD, {"prompt": "2+2=", "reference": "4"}, {"prompt": "3+3=", "reference": "6"})
    held_out = small_data / "held-out.jsonl"
    held_out.write_text(
        '{"prompt": "3+3=", "reference": "6"}\n{"prompt": "4+4=", "reference": "8"}\n', encoding="utf-8"
    )

    def warnings(path: str, **more: int) -> list[str]:
        evaluation = f'evaluation={{prompts = {{source = {{type = "jsonl", path = "{path}"}}, template = "none"}}'
        evaluation += "".join(f", {name} = {value}" for name, value in more.items()) + "}"
        return check_rows(load(small_data / "run.toml", [evaluation]))[1]

    (warning,) = warnings("held-out.jsonl")
    assert "1 of 2 held-out prompts are also trained on" in warning
    (warning,) = warnings("train.jsonl", max_prompts=2)
    assert "2 of 2 held-out prompts are also trained on" in warning


def test_what_looks_wrong_with_the_template_is_a_warning_with_the_rendered_text(small_data: Path) -> None:
    config = asked(small_data, GOOD)
    model = shutil.copytree(config.model.path, small_data / "chat-model")
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}", encoding="utf-8"
    )
    chat = load(small_data / "run.toml", [f"model.path={model}", "prompts.template=chat"])
    (warning,) = check_rows(chat)[1]
    assert "has no generation prompt" in warning
    assert "Rendered: 'Ques8tion words?'" in warning


def several(folder: Path, *sources: str, **files: list[dict[str, str]]) -> RunConfig:
    """A run over these sources, of files that are written here."""
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = (folder / "run.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)
    common = {key: value for key, value in settings["prompts"].items() if key != "source"}
    settings["prompts"] = common | {
        "sources": [
            {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} | tomllib.loads(own)
            for name, own in (source.split(" ", 1) for source in sources)
        ]
    }
    (folder / "several.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    return load(folder / "several.toml")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], r"prompts\.sources\.1: the dataset is empty; it needs at least one row"),
        ([UNGRADABLE], r"prompts\.sources\.1: .*other\.jsonl line 1: grader number: .*two"),
        ([UNREADABLE], r"prompts\.sources\.1: .*other\.jsonl line 1 has no column reference"),
    ],
)
def test_a_source_without_a_usable_row_is_named_by_its_place(
    small_data: Path, rows: list[dict[str, str]], complaint: str
) -> None:
    config = several(small_data, 'one name = "one"', 'other name = "other"', one=[GOOD], other=rows)
    with pytest.raises(InputError, match=complaint):
        check_rows(config)


def test_a_source_that_is_not_there_is_named_by_its_place(small_data: Path) -> None:
    config = several(small_data, 'one name = "one"', 'other name = "other"', one=[GOOD])
    with pytest.raises(InputError, match=r"other\.jsonl: No such file.*check prompts\.sources\.1\.source\.path"):
        check_datasets(config)


def test_sources_that_end_before_the_last_step_are_refused_and_one_that_does_is_a_warning(small_data: Path) -> None:
    config = several(small_data, 'one name = "one"\nepochs = 1', 'other name = "other"', one=[GOOD], other=[GOOD])
    needed = config.learner.steps * config.learner.groups_per_step
    assert needed > 2
    _, warnings = check_rows(config)
    assert "prompts.sources.0 (one) ends after 1 prompts, before the last step" in "\n".join(warnings)
    both = several(small_data, 'one name = "one"\nepochs = 1', 'other name = "other"\nepochs = 1')
    with pytest.raises(
        InputError, match=rf"every source of prompts\.sources ends, after 2 prompts .* at least {needed}"
    ):
        check_rows(both)
