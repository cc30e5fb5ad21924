"""A run whose memory is easy to compute by hand."""

from pathlib import Path

from services.config import RunConfig
from services.config.load import parse
from services.plan.learner import Training
from services.plan.shape import ModelShape

SEVEN_B = ModelShape(
    name="seven",
    parameters=7_000_000_000,
    layers=28,
    hidden=3584,
    intermediate=18944,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocabulary=152_064,
    tied=False,
)


def run_of(**changes: object) -> RunConfig:
    """A bfloat16 run on GPUs. changes: of [learner], or whole sections where the value is a mapping of that name."""
    settings: dict[str, object] = {
        "name": "plan",
        "device": "cuda",
        "model": {"path": "some/model", "max_length": 2048, "dtype": "bfloat16"},
        "prompts": {"source": {"type": "jsonl", "path": "none.jsonl"}},
        "rollout": {"sampling": {"max_tokens": 1024}},
        "weights": {"type": "nccl"},
        "learner": {"steps": 1, "groups_per_step": 64},
    }
    for section, keys in changes.items():
        held = settings.get(section)
        assert isinstance(keys, dict) or not isinstance(held, dict), section
        settings[section] = {**held, **keys} if isinstance(held, dict) and isinstance(keys, dict) else keys
    return parse(settings, folder=Path.cwd(), origin="the test")


def training_of(**changes: object) -> Training:
    return Training(run_of(**changes), SEVEN_B)
