"""`ratchet plan` says whether a run fits in words, in JSON and by its exit code; `ratchet config` and `up` ask it too."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from services import entry
from services.command import check_memory, plan, preflight, shares
from services.command.nvidia import NvidiaSmi
from services.command.plan_arguments import add_arguments
from services.config import RunConfig
from services.config.load import load
from services.errors import InputError
from services.plan.parts import GIB
from services.plan.plan import Machine

ROOT = Path(__file__).parents[3]
GSM8K = ROOT / "deploy/runs/gsm8k-2x80gb.toml"
ADDITION = ROOT / "examples/addition/addition.toml"
SEVEN_B = [
    *("--parameters", "7.62B", "--layers", "28", "--hidden", "3584", "--intermediate", "18944"),
    *("--heads", "28", "--kv-heads", "4", "--vocabulary", "152064"),
]


def asked(
    capsys: pytest.CaptureFixture[str], config: RunConfig, *words: str, terminal: bool = False
) -> tuple[int, str]:
    """The exit code and what is printed."""
    parser = entry.Parser()
    add_arguments(parser)
    arguments = parser.parse_args(words)
    console = Console(width=200, force_terminal=terminal, color_system="standard" if terminal else None)
    code = plan.run(config, arguments, console)
    return code, capsys.readouterr().out


def test_the_bundled_example_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = asked(capsys, load(ADDITION), "--host-memory", "16")
    assert code == entry.DONE
    assert "0.000791 B parameters" in said
    assert plan.NOT_FITTING not in said


def test_what_does_not_fit_is_said_with_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = asked(capsys, load(GSM8K), "--gpus", "8", "--gpu-memory", "80", *SEVEN_B)
    assert code == entry.BAD_INPUT
    assert "GPU of learner rank 0" in said
    assert "DOES NOT FIT" in said
    assert "learner.ranks = 7, learner.zero_stage = 3 saves" in said
    assert "it fits with " in said
    assert "\x1b[" not in said


def test_on_a_terminal_it_is_red(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = asked(capsys, load(GSM8K), "--gpus", "2", "--gpu-memory", "24", *SEVEN_B, terminal=True)
    assert "\x1b[1;31mDOES NOT FIT" in said


def test_json_has_bytes_and_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = asked(capsys, load(GSM8K), "--gpus", "2", "--gpu-memory", "80", "--json", *SEVEN_B)
    found = json.loads(said)
    assert (code, found["fits"]) == (entry.BAD_INPUT, False)
    assert found["machine"]["gpu_bytes"] == 80 * GIB
    assert found["zero_stages"].keys() == {"0", "1", "2", "3"}
    assert found["zero_stages"]["0"] is None
    assert {place["name"] for place in found["places"]} >= {"GPU of learner rank 0", "GPU of a replica", "Redis"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Qwen2.5-1.5B-Instruct is not on this machine, and nothing is downloaded for a plan; give its shape"),
        (["--parameters", "7B"], "--parameters 7B alone says too little; add --layers, --hidden"),
        (["--layers", "28"], "a shape in numbers begins with --parameters"),
        (["--model-config", "nowhere.json"], "--model-config: there is no nowhere.json"),
    ],
)
def test_a_model_that_is_not_known_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    with pytest.raises(InputError) as refusal:
        asked(capsys, load(GSM8K), "--gpu-memory", "80", *words)
    assert complaint in str(refusal.value)


def test_without_a_gpu_its_memory_has_to_be_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NvidiaSmi, "cards_or_none", lambda _: [])
    with pytest.raises(InputError, match="give --gpu-memory, such as --gpu-memory 80"):
        asked(capsys, load(GSM8K), *SEVEN_B)


@pytest.mark.parametrize("word", ["0", "-1", "nan", "much"])
def test_a_memory_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit) as end:
        asked(capsys, load(ADDITION), f"--gpu-memory={word}")
    assert end.value.code == entry.BAD_INPUT
    assert "argument --gpu-memory" in capsys.readouterr().err


def here(monkeypatch: pytest.MonkeyPatch, host_bytes: int) -> None:
    monkeypatch.setattr(check_memory, "this_machine", lambda _: Machine(host_bytes=host_bytes))


def test_a_run_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, GIB // 4)
    with pytest.raises(InputError, match=r"model\.path = .*would hold 0\.5 GiB at all times, and there are 0\.2"):
        check_memory.check_memory(load(ADDITION))


def test_a_run_that_hardly_fits_is_warned_of_before_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(monkeypatch, 2 * GIB)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "reference": "2"}\n', encoding="utf-8")
    sections = ("prompts", "evaluation.prompts")
    data = [f"{section}.source.path={tmp_path / 'rows.jsonl'}" for section in sections]
    warnings = preflight.check(load(ADDITION, [*data, f"runs_folder={tmp_path}"])).warnings
    assert any("memory of the host needs" in warning and "`ratchet plan` says" in warning for warning in warnings)


def test_a_model_that_is_not_here_is_left_to_who_loads_it() -> None:
    assert check_memory.check_memory(load(GSM8K)) == []


@pytest.mark.parametrize(("gpus", "replicas"), [(2, 1), (4, 3), (8, 7)])
def test_replicas_that_are_left_to_the_machine_are_those_that_up_chooses(
    capsys: pytest.CaptureFixture[str], gpus: int, replicas: int
) -> None:
    config = load(GSM8K)
    assert config.rollout.replicas == "auto"
    _, said = asked(capsys, config, "--gpus", str(gpus), "--gpu-memory", "80", "--json", *SEVEN_B)
    places = {place["name"]: place["count"] for place in json.loads(said)["places"]}
    assert places["GPU of a replica"] == replicas
    chosen = shares.choices(config, cores=16, gpu_count=gpus)
    assert [one.number for one in chosen if one.key == "replicas"] == [replicas]


def test_of_gpus_that_nobody_counted_one_replica_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = asked(capsys, load(GSM8K), "--gpu-memory", "80", *SEVEN_B)
    assert "1 replica of 1" in said


def test_replicas_make_room_for_ranks_that_the_plan_proposes(capsys: pytest.CaptureFixture[str]) -> None:
    """Seven of eight GPUs are chosen for replicas, and the change that helps needs them for the learner."""
    _, said = asked(capsys, load(GSM8K), "--gpus", "8", "--gpu-memory", "80", *SEVEN_B)
    assert "7 replicas of 1" in said
    assert "learner.ranks = 7, learner.zero_stage = 3 saves" in said
