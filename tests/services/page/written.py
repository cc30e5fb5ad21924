"""A run folder as services would leave it, with groups whose texts are hostile."""

import base64
from pathlib import Path

import msgspec

from services.command.run_processes import write_settings
from services.config.load import load
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.run.kept_groups import KeptGroup, KeptResponse, KeptWords, write_step
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt
from tests.services.config.test_load import SMALLEST

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"'&"


def response(reward: float, *, pieces: list[str] | None = None, version: int = 3, trained: bool = True) -> KeptResponse:
    pieces = pieces or ["4", HOSTILE]
    count = len(pieces)
    return KeptResponse(
        token_ids=list(range(count)),
        pieces=pieces,
        text="".join(pieces),
        finish_reason="stop",
        verdict="correct" if reward > 0 else "incorrect",
        reward=reward,
        detail=HOSTILE,
        grading_s=0.001,
        spans=[(version, 0, count)],
        behavior_logp=[-0.5] * count,
        current_logp=[-0.25] * count if trained else None,
        one_way_weight=[1.25] * count if trained else None,
    )


def kept(step: int, number: int, rewards: list[float], *, dropped: str | None = None, version: int = 3) -> KeptGroup:
    return KeptGroup(
        step=step,
        group_id=f"train-{number}",
        row=number,
        replica_id="rollout-0",
        verifier_id="v",
        grader="exact",
        reference="4",
        temperature=1.0,
        dropped=dropped,
        prompt=f"2+2= {HOSTILE}",
        prompt_tokens=5,
        responses=[response(reward, version=version, trained=dropped is None) for reward in rewards],
    )


def talked(step: int, number: int) -> KeptGroup:
    """A group of two conversations of three turns; the second begins its sequence again."""
    pieces = ["<tool_call>", "12*7", "</tool_call>", "It ", "is ", "84", "bye"]
    plain = kept(step, number, [1.0, 0.0])
    words = [
        KeptWords(before=0, text="", restarts=False, reward=None),
        KeptWords(before=3, text=f"tool: 84 {HOSTILE}", restarts=False, reward=0.5),
        KeptWords(before=6, text="all of it again", restarts=True, reward=1.0),
    ]
    responses = [
        msgspec.structs.replace(response(reward, pieces=pieces), words=words if reward == 0 else words[:2])
        for reward in (1.0, 0.0)
    ]
    return msgspec.structs.replace(plain, responses=responses)


def prompt(number: int) -> Prompt:
    return Prompt(
        group_id=f"train-{number}",
        sequence_number=number,
        purpose="train",
        row=number,
        token_ids=Array.of([1, 2], "<i4"),
        group_size=2,
        temperature=1.0,
        max_tokens=8,
        stop_token_ids=(),
        seed=0,
        grader="exact",
        reference="4",
        options={},
    )


def step_row(step: int, **more: object) -> dict[str, object]:
    groups = {"issued": 9, "trained": 4, "dropped": {"stale": 1}, "dead": 1, "outstanding": 3}
    return {"step": step, "attempt": 1, "pass_rate": step / 10, "groups": groups, "tokens": 100, **more}


def write_run(tmp_path: Path, *, name: str = "try", redis_url: str | None = None) -> RunFolder:
    """Three steps, two of them with groups, an evaluation and two dead groups."""
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    config = load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs", f"name={name}"])
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    write_settings(config, folder)
    if redis_url is not None:
        folder.redis_url.write_text(redis_url, encoding="utf-8")
    with JsonLines(folder.steps) as lines:
        for step in (1, 2, 3):
            lines.write(**step_row(step))
    with JsonLines(folder.evaluations) as lines:
        lines.write(attempt=1, policy_version=0, avg_at_k=0.25)
    with JsonLines(folder.dead) as lines:
        alive = base64.b64encode(encode(prompt(7))).decode()
        lines.write(group_id="train-7", stage="trajectories", cause=HOSTILE, row=7, purpose="train", prompt=alive)
        lines.write(group_id="1-0", stage="scored", cause="damaged", row=None, purpose=None, prompt=None)
    write_step(
        folder.groups, 2, [kept(2, 1, [0.0, 1.0], version=1), kept(2, 2, [0.0, 0.0], dropped="zero_variance")], 2**20
    )
    write_step(folder.groups, 4, [kept(4, 3, [1.0, 1.0, 0.0], version=1)], 2**20)
    return folder
