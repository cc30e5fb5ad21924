"""A wrong setting gets an error that names its place and what to do; a right one survives a round trip."""

from pathlib import Path

import pytest

from services.command import cli, preflight
from services.config import RunConfig
from services.config.load import holds_password, load, render, render_masked
from services.config.objectives.registry import OURS
from services.errors import InputError

ROOT = Path(__file__).parents[3]
SMALLEST = """
name = "try"
device = "cpu"
[model]
path = "./model"
max_length = 32
dtype = "float32"
[prompts.source]
type = "jsonl"
path = "train.jsonl"
[rollout.sampling]
max_tokens = 8
[learner]
steps = 10
groups_per_step = 4
[weights]
type = "gloo"
"""


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_that_names_them(smallest: Path) -> None:
    config = load(smallest)
    assert config.prompts.source.path == smallest.parent / "train.jsonl"  # type: ignore[union-attr]
    assert config.model.path == str(smallest.parent / "model")


def test_what_is_rendered_loads_as_the_same_settings(smallest: Path, tmp_path: Path) -> None:
    config = load(smallest, ["learner.max_lag=3", 'evaluation.prompts.source={type = "jsonl", path = "held.jsonl"}'])
    elsewhere = tmp_path / "elsewhere" / "resolved.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(render(config), encoding="utf-8")
    assert load(elsewhere) == config


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:s3cr3t@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://me:s3cr3t@s3cr3t/@host:6379/0", "rediss://me:***@host:6379/0"),
        ("unix:///run/redis.sock?db=1&password=s3cr3t", "unix:///run/redis.sock?db=1&password=***"),
        ("redis://me@host:6379/0", "redis://me@host:6379/0"),
    ],
)
def test_a_password_is_not_printed(smallest: Path, tmp_path: Path, url: str, printed: str) -> None:
    config = load(smallest, [f'redis.url="{url}"'])
    assert load_rendered(tmp_path, render(config)).redis.url == url
    assert load_rendered(tmp_path, render_masked(config)).redis.url == printed
    assert holds_password(config) == ("s3cr3t" in url)
    with pytest.raises(InputError) as error:
        load(smallest, [f'redis="{url}"'])
    assert "s3cr3t" not in str(error.value)


def load_rendered(folder: Path, text: str) -> RunConfig:
    (folder / "rendered.toml").write_text(text, encoding="utf-8")
    return load(folder / "rendered.toml")


@pytest.mark.parametrize("command", [["config"], ["up", "--dry-run"]])
def test_no_command_prints_a_password(
    smallest: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command[:1], str(smallest), *command[1:], "--set", "redis.url=redis://:s3cr3t@host:6379/0"]
    monkeypatch.setattr("sys.argv", ["ratchet", *arguments])
    monkeypatch.setattr(preflight, "check", lambda config, quick: preflight.Checked())
    assert cli._main() == 0
    assert "redis://:***@host:6379/0" in capsys.readouterr().out


def test_settings_do_not_change_after_loading(smallest: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(smallest).learner.steps = 5


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("learner.max_lagg=3", 'learner.max_lagg: no such key; did you mean "max_lag"'),
        ("learner.age_rule=drop", 'learner.age_rule: is now called "stale_tokens"; rename it'),
        ("rollout.sampling.top_p=0.9", "rollout.sampling.top_p: no such key"),
        ("learner.objective.weight_lo=0.5", 'learner.objective.weight_lo: no such key; did you mean "weight_low"'),
        (
            "name=a b",
            "name = 'a b': use up to 64 letters, digits, dots, dashes and underscores, with a letter or a digit",
        ),
        ('verifier.endpoints={"a b" = {url = "http://h"}}', "verifier.endpoints.a b = 'a b': use up to 40 letters"),
        ("prompts.source.path=7", "prompts.source.path = 7: must be a path, in quotes"),
        (
            "prompts.source.type=csv",
            "prompts.source = {'type': 'csv', 'path': 'train.jsonl'}: its type 'csv' is none of 'jsonl'",
        ),
        ("weights.bucket_mib=0", "weights.bucket_mib = 0: input should be greater than or equal to 1"),
        ('prompts.columns={prompt = "q"}', "prompts.columns.reference: missing; add it"),
        ("learner.optimizer=fast", "learner.optimizer = 'fast': is a section: write its keys"),
        ("rollout.sampling.stop_token_ids=x", "rollout.sampling.stop_token_ids = 'x': must be a list, as in [1, 2]"),
        ("rollout.sampling.stop=['']", "rollout.sampling.stop.0 = '': must not be empty"),
        (
            "rollout.sampling.temperature=2.5",
            "rollout.sampling.temperature = 2.5: input should be less than or equal to 2",
        ),
        ("learner.gradient_checkpointing=yes", "learner.gradient_checkpointing = 'yes': must be true or false"),
        ("learner.objective.tau=0.5", "learner.objective.tau: no such key; remove it or check its section"),
        ("learner.objective.type=grop", 'no objective is called "grop"; did you mean "grpo"? There are acpo, asymre,'),
        ("learner.objective={clip = {low = 0.1}}", "learner.objective.type: missing; say which kind it is"),
        ('learner.steps="10"', "learner.steps = '10': input should be a valid integer"),
        ("learner.steps=0", "learner.steps = 0: input should be greater than or equal to 1"),
        ("learner.optimizer.learning_rate=nan", "learner.optimizer.learning_rate = nan"),
        ("rollout.sampling.max_tokens=32", "leaves no room for a prompt within model.max_length = 32"),
        ("learner.row_tokens=16", "learner.row_tokens = 16 cannot hold a sequence"),
        ("rollout.max_concurrent_sequences=4", "cannot hold one group"),
        ('weights.type="nccl"', 'on CPU set weights.type = "gloo"'),
        ("learner.objective.weight_low=1.2", "the one-way bounds must enclose 1"),
        ("learner.objective.weight_high=0.9", "the one-way bounds must enclose 1"),
        ("learner.objective.weight_low=0.0", "the one-way bounds must enclose 1"),
        ('weights.host="::1"', 'weights.host: "::1" is an IPv6 address or holds a port'),
        ('verifier.host="[::]"', 'verifier.host: "[::]" is an IPv6 address or holds a port'),
        (
            'learner.metrics_host="0.0.0.0:90"',
            'learner.metrics_host: "0.0.0.0:90" is an IPv6 address or holds a port',
        ),
        ('rollout.metrics_host="http://here"', 'rollout.metrics_host: "http://here" is not a host'),
        ('name="../escape"', "name = '../escape'"),
        ("prompts.source={}", "prompts.source.type: missing"),
        ("learner.reference.roll_back=0.02", "roll_back = 0.02 is within tolerance = 0.02"),
        ("learner.reference.roll_back=1.5", "learner.reference.roll_back = 1.5: input should be less than 1"),
        ("learner.reference={roll_back = 0.1, every_steps = 9}", "raise learner.reference.every_steps = 9 to 10"),
        ('learner.reference={type = "ema", dtype = "bfloat16"}', 'dtype = "bfloat16" would round away'),
        ('learner.reference={type = "fixed", dtype = "float16"}', "dtype = 'float16'"),
        ('learner.reference={type = "fixed", roll_back = 0.1}', "learner.reference.roll_back: no such key"),
        ("learner", "is not of the form section.key=value"),
        ("name.first=1", "name is a value, not a section"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(smallest: Path, override: str, complaint: str) -> None:
    overrides = ['learner.objective.type="owpo"', override] if "objective" in override else [override]
    with pytest.raises(InputError) as error:
        load(smallest, overrides)
    assert complaint in str(error.value)


def test_all_faults_are_reported_at_once(smallest: Path) -> None:
    with pytest.raises(InputError) as error:
        load(smallest, ["learner.stepz=1", "device=tpu"])
    assert "learner.stepz" in str(error.value)
    assert "device = 'tpu'" in str(error.value)


def test_a_missing_section_is_named(smallest: Path) -> None:
    smallest.write_text(SMALLEST.replace('[weights]\ntype = "gloo"\n', ""), encoding="utf-8")
    with pytest.raises(InputError, match="weights: missing"):
        load(smallest)


@pytest.mark.parametrize("content", ["name = ", "\x00", "[a]\n[a]\n"])
def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.toml is not valid TOML: .*(line|end of document)"):
        load(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration at"):
        load(tmp_path / "none.toml")


RUN_FILES = [
    path
    for folder in ("examples", "deploy", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.toml"))
    if path.name != "pyproject.toml"  # of an example that is a package
]


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_run_file_in_the_repository_loads(path: Path) -> None:
    load(path)


def test_there_are_run_files() -> None:
    assert RUN_FILES


PRESETS = {path.stem: path for path in (ROOT / "deploy" / "runs" / "objectives").glob("*.toml")}
BASE = PRESETS.pop("base")


def test_a_preset_is_named_after_its_objective_and_is_short() -> None:
    assert {name: load(path).learner.objective.type for name, path in PRESETS.items()} == {
        name: name for name in PRESETS
    }
    assert len({load(path).name for path in PRESETS.values()}) == len(PRESETS)
    for path in PRESETS.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 12, path


@pytest.mark.parametrize("kind", OURS)
def test_every_objective_runs_from_its_preset_or_by_its_name_on_the_base_of_them(kind: str) -> None:
    config = load(PRESETS[kind]) if kind in PRESETS else load(BASE, [f"learner.objective.type={kind}"])
    assert config.learner.objective.type == kind


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["learner.objective.type=dr_grpo"], "set it to rollout.sampling.max_tokens"),
        (
            ["learner.objective.type=gspo", "learner.aggregation=token_mean"],
            'with learner.aggregation = "sequence_mean"',
        ),
        (["learner.objective.type=popo", "learner.reference.type=fixed"], 'needs learner.reference.type = "ema"'),
        (["learner.objective.type=opd"], "takes 1 [[learner.teachers]], not 0"),
        (["learner.objective.type=minpro", "learner.importance.cap=2.0"], "leave [learner.importance] out"),
        (["learner.objective.type=mc_grpo"], "needs an odd rollout.sampling.group_size, not 8"),
        (["learner.importance.floor=0.5"], 'has no effect with action = "truncate"'),
        (["learner.objective.type=bapo", "learner.objective.low=0.9"], "bounds only rise"),
        (["learner.objective.type=acpo", "learner.objective.base=5.0"], "narrowest <= base <= widest"),
        (
            [
                "learner.objective.type=mopd",
                "learner.objective.weights=[1.0]",
                'learner.teachers=[{path="./a"}, {path="./b"}]',
            ],
            "1 weights for 2 teachers",
        ),
    ],
)
def test_an_objective_without_what_it_needs_says_so(smallest: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        load(smallest, overrides)
    assert complaint in str(error.value)


def test_what_an_objective_was_published_with_gives_way_to_what_is_written(smallest: Path) -> None:
    plain = load(smallest, ["learner.objective.type=dapo"]).learner
    assert (plain.aggregation, plain.advantage.normalize, plain.ess.enabled) == ("token_mean", "sample_std", False)
    said = load(smallest, ["learner.objective.type=dapo", "learner.advantage.baseline=length_weighted"]).learner
    assert (said.advantage.baseline, said.advantage.normalize) == ("length_weighted", "sample_std")
    averaged = load(smallest, ["learner.objective.type=ppo_ewma", "learner.reference.decay=0.5"]).learner
    assert (averaged.reference.type, averaged.reference.decay) == ("ema", 0.5)  # type: ignore[union-attr]
    assert load(smallest).learner.reference.type == "ratchet"


def test_the_limit_relative_to_recent_gradients_is_owpo_s_and_anybody_s_who_asks(smallest: Path) -> None:
    assert load(smallest).learner.optimizer.max_grad_norm_ratio == 2.0
    grpo = ["learner.objective.type=grpo", "learner.optimizer.learning_rate=3e-5"]
    assert load(smallest, grpo).learner.optimizer.max_grad_norm_ratio == 0.0
    assert load(smallest, grpo).learner.optimizer.learning_rate == 3e-5
    assert (
        load(smallest, [*grpo, "learner.optimizer.max_grad_norm_ratio=3"]).learner.optimizer.max_grad_norm_ratio == 3.0
    )
    with pytest.raises(InputError, match=r"max_grad_norm_ratio.*use more than 1, or 0"):
        load(smallest, ["learner.optimizer.max_grad_norm_ratio=0.5"])


def test_any_reference_may_be_offloaded_and_all_but_an_average_kept_in_bfloat16(smallest: Path) -> None:
    for kind in ("ratchet", "fixed", "ema"):
        held = load(smallest, [f"learner.reference.type={kind}", "learner.reference.offload=true"]).learner.reference
        assert (held.type, held.offload, held.dtype) == (kind, True, "model")
    for kind in ("ratchet", "fixed"):
        held = load(smallest, [f"learner.reference.type={kind}", "learner.reference.dtype=bfloat16"]).learner.reference
        assert (held.dtype, held.offload) == ("bfloat16", False)


def test_a_roll_back_needs_a_whole_window_between_two_swaps(smallest: Path) -> None:
    """Swaps are counted in optimizer steps, the window in learner steps."""
    ten = ["learner.reference.roll_back=0.1", "learner.reference.smoothing_steps=10", "learner.mini_batches=3"]
    assert load(smallest, [*ten, "learner.reference.every_steps=30"]).learner.reference.roll_back == 0.1  # type: ignore[union-attr]
    with pytest.raises(InputError, match="every_steps = 29 to 30"):
        load(smallest, [*ten, "learner.reference.every_steps=29"])


def test_constant_tokens_without_their_aggregation_are_refused(smallest: Path) -> None:
    with pytest.raises(InputError, match=r"learner\.constant_tokens = 5 has no effect with learner\.aggregation"):
        load(smallest, ["learner.constant_tokens=5"])
