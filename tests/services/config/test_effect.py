"""Settings that another one switches off are found when they are given, each of them, and nothing else is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.reference import all_settings, sentences
from services.config import RunConfig
from services.config.base import Strict
from services.config.effect import ineffective, marks_of
from services.config.load import load, parse
from services.config.objectives.registry import OURS
from tests.services.config.test_load import SMALLEST

ROOT = Path(__file__).parents[3]
RUN_FILES = sorted(
    path
    for folder in ("deploy", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.toml")
    if path.name != "pyproject.toml"
)
STEPS = "learner.mini_batches=4"
CLIP = "learner.objective.clip.high=0.5"
DUAL = "learner.objective.dual_clip=7.0"
LINEAR = 'learner.objective.proximal="log_linear"'

HELD_OUT = 'evaluation.prompts={source = {type = "jsonl", path = "held.jsonl"}}'
TRIALS: list[tuple[list[str], str, list[str]]] = [
    # What makes the setting idle, the setting, and what makes it act.
    (['learner.advantage.baseline="mean"'], "learner.advantage.tau=0.5", ['learner.advantage.baseline="log_mean_exp"']),
    (
        ['learner.advantage.baseline="mean"'],
        "learner.advantage.positive_above=0.2",
        ['learner.advantage.baseline="positives"'],
    ),
    *(
        (['learner.importance.level="none"'], given, ['learner.importance.level="token"'])
        for given in ("learner.importance.cap=3.0", 'learner.importance.action="mask"')
    ),
    (
        ['learner.importance.level="none"', 'learner.importance.action="mask"'],
        "learner.importance.floor=0.1",
        ['learner.importance.level="token"', 'learner.importance.action="mask"'],
    ),
    *(
        (["learner.ess.enabled=false"], given, ["learner.ess.enabled=true"])
        for given in (
            'learner.ess.rule="linear"',
            "learner.ess.full_ratio=0.5",
            "learner.ess.calibrate_steps=5",
            "learner.ess.floor=0.2",
        )
    ),
    (
        ["learner.ess.enabled=false"],
        "learner.ess.full_ratio=0.5",
        ["learner.ess.enabled=false", "learner.lag_control.enabled=true"],
    ),
    *(
        ([], given, ["learner.lag_control.enabled=true", "learner.max_lag=4"])
        for given in (
            "learner.lag_control.target_ess_ratio=0.5",
            "learner.lag_control.band=0.2",
            "learner.lag_control.smoothing_steps=3",
            "learner.lag_control.least=2",
        )
    ),
    ([], "learner.window_fraction=0.3", ['learner.order="dispatch"']),
    ([], "learner.optimizer.final_fraction=0.1", ['learner.optimizer.schedule="linear"']),
    (['learner.objective.type="grpo"'], "learner.reference.every_steps=7", ['learner.objective.type="owpo"']),
    (['learner.objective.type="grpo"'], 'learner.reference.type="fixed"', ['learner.objective.type="owpo"']),
    ([], "learner.reference.offload=true", ['device="cuda"']),
    (["learner.reference.gated=false"], "learner.reference.tolerance=0.05", ["learner.reference.gated=true"]),
    (["learner.reference.gated=false"], "learner.reference.smoothing_steps=5", ["learner.reference.gated=true"]),
    (
        ["learner.reference.gated=false"],
        "learner.reference.smoothing_steps=5",
        ["learner.reference.gated=false", "learner.reference.roll_back=0.3"],
    ),
    (['device="cuda"'], "rollout.cpu_threads=3", []),
    ([], "rollout.gpu_memory_fraction=0.5", ['device="cuda"']),
    (['prompts.template="none"'], 'prompts.system_prompt="Be brief."', ['prompts.template="chat"']),
    (
        ['prompts.template="none"'],
        "prompts.chat_template_kwargs={thinking = true}",
        ['prompts.template="chat"'],
    ),
    *(([], given, ["prompts.skip.solved=true"]) for given in ("prompts.skip.after=3", "prompts.skip.retry_steps=9")),
    ([], 'verifier.ca_certificate="ca.pem"', ['verifier.url="https://host:1"']),
    (
        [],
        "deadlines.evaluation_s=60.0",
        ['evaluation.prompts.source={type = "jsonl", path = "held-out.jsonl"}'],
    ),
    (
        ['learner.zero_variance="train"'],
        'learner.zero_variance_of="verdict"',
        ['learner.zero_variance="drop"'],
    ),
    (
        ['learner.objective.type="opd"', 'learner.teachers=[{path = "a/teacher"}]'],
        'learner.advantage.normalize="sample_std"',
        ['learner.objective.type="opd"', 'learner.teachers=[{path = "a/teacher"}]', "learner.objective.outcome=0.5"],
    ),
    *(
        ([f'learner.objective.type="{kind}"'], given, [f'learner.objective.type="{kind}"', STEPS])
        for kind, settings in {
            "cispo": [CLIP],
            "gspo": [CLIP],
            "dapo": [CLIP, DUAL],
            "grpo": [CLIP, DUAL],
            "maxrl": [CLIP, DUAL],
            "owpo": [CLIP, DUAL],
            "decoupled_ppo": [CLIP, DUAL],
            "sapo": ["learner.objective.tau_positive=2.0", "learner.objective.tau_negative=2.0"],
            "acpo": [
                "learner.objective.bins=3",
                "learner.objective.alpha=2.0",
                "learner.objective.base=0.3",
                "learner.objective.narrowest=0.1",
                "learner.objective.widest=2.0",
                DUAL,
            ],
            "bapo": [
                "learner.objective.balance=1.5",
                "learner.objective.low=0.5",
                "learner.objective.low_most=0.9",
                "learner.objective.high=1.3",
                "learner.objective.high_most=1.9",
                "learner.objective.stride=0.1",
                DUAL,
            ],
        }.items()
        for given in settings
    ),
    *(
        (
            ['learner.objective.type="dr_grpo"', "learner.constant_tokens=4"],
            given,
            ['learner.objective.type="dr_grpo"', "learner.constant_tokens=4", STEPS],
        )
        for given in (CLIP, DUAL)
    ),
    *(
        (
            ['learner.objective.type="mc_grpo"', "rollout.sampling.group_size=5"],
            given,
            ['learner.objective.type="mc_grpo"', "rollout.sampling.group_size=5", STEPS],
        )
        for given in (CLIP, DUAL)
    ),
    *(
        (
            ['learner.objective.type="decoupled_ppo"'],
            given,
            ['learner.objective.type="decoupled_ppo"', LINEAR],
        )
        for given in (CLIP, 'learner.objective.at_lag_zero="behavior"')
    ),
    *(
        (['learner.objective.type="popo"', "learner.objective.alpha=0.0"], given, ['learner.objective.type="popo"'])
        for given in ("learner.objective.predictor_width=64", "learner.objective.noise=0.1")
    ),
    ([], "learner.checkpoint.keep_best=1", [HELD_OUT]),
    (
        ["learner.checkpoint.keep_best=0"],
        'learner.checkpoint.best_by="pass_at_k"',
        [HELD_OUT, "learner.checkpoint.keep_best=1"],
    ),
]


def run(folder: Path, *overrides: str) -> RunConfig:
    (folder / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(folder / "run.toml", overrides)


@pytest.mark.parametrize(("off", "given", "on"), TRIALS)
def test_a_setting_is_reported_while_another_one_switches_it_off(
    tmp_path: Path, off: list[str], given: str, on: list[str]
) -> None:
    place = given.partition("=")[0]
    (warning,) = (one for one in ineffective(run(tmp_path, *off, given)) if one.startswith(place))
    assert warning.startswith(f"{place} = ")
    assert "has no effect: it acts only with " in warning
    assert not any(one.startswith(place) for one in ineffective(run(tmp_path, *off)))
    assert ineffective(run(tmp_path, *on, given)) == []


def test_every_marked_setting_is_tried() -> None:
    tried = {given.partition("=")[0].rpartition(".") for _, given, _ in TRIALS}
    names = {name for _, _, name in tried} | {section.rpartition(".")[2] for section, _, _ in tried}
    missing = {(section.__name__, name) for section, name in marked() if name not in names}
    assert not missing


def marked() -> Iterator[tuple[type[Strict], str]]:
    """Every setting that carries a mark, with its section."""
    for section in [*all_settings(), *OURS.values()]:
        if issubclass(section, Strict):
            yield from ((section, name) for name in section.model_fields if marks_of(section, name))


def test_a_sentence_that_says_so_goes_with_a_mark() -> None:
    for section in [*all_settings(), *OURS.values()]:
        for name, sentence in sentences(section).items():
            says = any(words in sentence for words in ("Acts only with", "ignored otherwise", "ignore it"))
            if says and issubclass(section, Strict):
                assert marks_of(section, name), f"{section.__name__}.{name}"


def test_the_warning_names_both_places_and_the_value(tmp_path: Path) -> None:
    assert ineffective(run(tmp_path, "learner.optimizer.final_fraction=0.1")) == [
        'learner.optimizer.final_fraction = 0.1 has no effect: it acts only with learner.optimizer.schedule = "linear"; '
        "leave it out if that is meant"
    ]
    (warning,) = ineffective(
        run(
            tmp_path,
            "learner.reference.gated=false",
            "learner.reference.smoothing_steps=5",
        )
    )
    assert "only with learner.reference.gated = true or with learner.reference.roll_back set;" in warning


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_run_file_of_ours_has_one(path: Path) -> None:
    if path.parent.name == "objectives" and path.stem == "base":
        return  # each objective lays itself over it
    assert ineffective(load(path)) == []


@pytest.mark.parametrize("kind", sorted(OURS))
def test_what_an_objective_was_published_with_is_not_one(kind: str) -> None:
    path = ROOT / "deploy" / "runs" / "objectives" / f"{kind}.toml"
    config = load(path)
    assert ineffective(config) == []
    again: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    assert ineffective(parse(again, folder=path.parent, origin="what the services read")) == []
