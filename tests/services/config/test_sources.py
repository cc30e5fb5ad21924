"""Several sources, samplers and shaping: what cannot work is named by the key as it is typed."""

from pathlib import Path

import pytest

from services.config.load import load, render
from services.errors import InputError
from tests.services.config.test_load import SMALLEST

SOURCES = """
[prompts]
template = "none"
grader = "exact"
[[prompts.sources]]
name = "sums"
weight = 2.0
source = { type = "jsonl", path = "sums.jsonl" }
[[prompts.sources]]
name = "words"
grader = "math"
max_tokens = 4
temperature = 0.5
group_size = 4
source = { type = "jsonl", path = "words.jsonl" }
"""
NONE = 'template = "none"'
SEVERAL = SMALLEST.replace('[prompts.source]\ntype = "jsonl"\npath = "train.jsonl"\n', SOURCES)


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_source_takes_from_the_section_what_it_does_not_say(tmp_path: Path) -> None:
    config = load(written(tmp_path, SEVERAL))
    sums, words = config.prompts.each
    assert (sums.name, sums.template, sums.grader) == ("sums", "none", "exact")
    assert (words.name, words.template, words.grader) == ("words", "none", "math")
    assert sums.source.path == tmp_path / "sums.jsonl"  # type: ignore[union-attr]
    assert config.sampling_of(sums) == config.rollout.sampling
    sampling = config.sampling_of(words)
    assert (sampling.max_tokens, sampling.temperature, sampling.group_size) == (4, 0.5, 4)
    assert list(config.prompts.by_place("prompts")) == ["prompts.sources.0", "prompts.sources.1"]


def test_several_sources_survive_a_round_trip_and_being_laid_over(tmp_path: Path) -> None:
    held_out = SOURCES[SOURCES.index("[prompts]") :].replace("prompts", "evaluation.prompts")
    config = load(written(tmp_path, SEVERAL + held_out.replace("weight = 2.0\n", "").replace("group_size = 4\n", "")))
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert load(written(other, render(config))) == config
    (other / "over.toml").write_text('extends = "../run.toml"\n[learner]\nsteps = 3\n', encoding="utf-8")
    assert load(other / "over.toml").prompts == config.prompts


def test_one_source_has_no_name(tmp_path: Path) -> None:
    (one,) = load(written(tmp_path, SMALLEST)).prompts.by_place("prompts").items()
    assert (one[0], one[1].name) == ("prompts", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight = 2.0", "weight = 0.0", "prompts.sources.0.weight = 0.0: input should be greater than 0"),
        ("weight = 2.0", "weight = -1.0", "prompts.sources.0.weight = -1.0: input should be greater than 0"),
        ('name = "words"', 'name = "sums"', 'prompts: two sources are named "sums"; give each a name of its own'),
        ('name = "words"', 'name = "two words"', "prompts.sources.1.name = 'two words': use up to 40 letters"),
        ('name = "words"\n', "", "prompts.sources.1.name: missing; add it"),
        ("max_tokens = 4", "max_tokens = 32", "prompts.sources.1.max_tokens = 32 leaves no room for a prompt"),
        ("group_size = 4", "group_size = 300", "cannot hold one group of prompts.sources.1.group_size = 300"),
        ("group_size = 4", "group_sise = 4", 'prompts.sources.1.group_sise: no such key; did you mean "group_size"?'),
        (NONE, f'{NONE}\nsource = {{type = "jsonl", path = "x"}}', "source and sources are both given"),
        (
            NONE,
            f'{NONE}\nsampler = {{type = "best"}}',
            "prompts.sampler = {'type': 'best'}: its type 'best' is none of",
        ),
        (
            NONE,
            f'{NONE}\nsampler = {{type = "replay", low = 0.6}}',
            "prompts.sampler: low = 0.6 and high = 0.75 must have",
        ),
        (NONE, f'{NONE}\nsampler = {{type = "replay", max_reuses = 0}}', "prompts.sampler.max_reuses = 0"),
        (NONE, f"{NONE}\nadaptive_group = {{least = 8, most = 8}}", "prompts.adaptive_group: least = 8 is not below"),
        (NONE, f"{NONE}\nadaptive_group = {{least = 2, most = 400}}", "prompts.adaptive_group.most = 400"),
        (NONE, f"{NONE}\nadaptive_group = {{least = 6, most = 9}}", "prompts.sources.1.group_size = 4, with which"),
        (
            NONE,
            f'{NONE}\nshuffle = false\nsampler = {{type = "curriculum"}}',
            "prompts: shuffle = false keeps the order",
        ),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SEVERAL
    with pytest.raises(InputError) as refused:
        load(written(tmp_path, SEVERAL.replace(old, new)))
    assert said in str(refused.value)


def test_a_run_without_a_source_and_group_dro_over_one_are_named(tmp_path: Path) -> None:
    without = SMALLEST.replace('[prompts.source]\ntype = "jsonl"\npath = "train.jsonl"\n', "[prompts]\n")
    with pytest.raises(InputError, match=r"prompts: no source: add source = "):
        load(written(tmp_path, without))
    with pytest.raises(InputError, match=r'prompts: mixture.type = "group_dro" weighs several sources'):
        load(written(tmp_path, SMALLEST), ['prompts.mixture={type = "group_dro"}'])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "learner.shaping.format=[{pattern = '('}]",
            r"learner.shaping.format.0.pattern: '(' is not a regular expression",
        ),
        ("learner.shaping.overlong.buffer_tokens=9", "learner.shaping.overlong.buffer_tokens = 9 is above"),
        (
            "learner.shaping.budget.tokens=9",
            "learner.shaping.budget.tokens = 9 is above rollout.sampling.max_tokens = 8",
        ),
        ("learner.shaping.efficiency.strength=1.0", "learner.shaping.efficiency.strength = 1.0"),
    ],
)
def test_shaping_that_cannot_hold_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        load(written(tmp_path, SMALLEST), [override])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("sampler = {type = 'replay'}", "an evaluation asks every problem"),
        ("adaptive_group = {least = 2, most = 4}", "an evaluation takes samples_per_prompt responses"),
        ("sources = [{name = 'a', weight = 2.0, source = {type = 'jsonl', path = 'a'}}]", "sources.0.weight has no"),
    ],
)
def test_what_an_evaluation_has_no_use_for_is_named(tmp_path: Path, own: str, said: str) -> None:
    source = "" if "sources" in own else ", source = {type = 'jsonl', path = 'x'}"
    with pytest.raises(InputError) as refused:
        load(written(tmp_path, SMALLEST), [f"evaluation={{prompts = {{{own}{source}}}}}"])
    assert said in str(refused.value)
