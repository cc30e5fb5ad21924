"""What may be said of adapters in a run file."""

from pathlib import Path

import pytest

from services.config.load import load
from services.config.lora import LoraConfig
from services.errors import InputError
from tests.services.config.test_load import SMALLEST


def loaded(folder: Path, *overrides: str) -> LoraConfig | None:
    (folder / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(folder / "run.toml", overrides).learner.lora


def test_every_weight_is_trained_unless_a_run_asks_for_adapters(tmp_path: Path) -> None:
    assert loaded(tmp_path) is None
    assert loaded(tmp_path, "learner.lora={}") == LoraConfig()
    lora = loaded(tmp_path, "learner.lora.rank=8", 'learner.lora.targets=["q_proj", "v_proj"]')
    assert lora is not None
    assert (lora.rank, lora.targets) == (8, ("q_proj", "v_proj"))


def test_the_scale_is_alpha_over_the_rank_or_its_root() -> None:
    assert LoraConfig(rank=16, alpha=8).scale == 0.5
    assert LoraConfig(rank=16, alpha=8, rslora=True).scale == 2.0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.lora.dropout=0.1", "learner.lora: dropout would make the ratios"),
        ("learner.lora.lora_dropout=0.0", "learner.lora: dropout would make the ratios"),
        (
            "learner.lora.targets=q_proj",
            'learner.lora.targets: "q_proj" is not a list; write ["q_proj"], or "all-linear"',
        ),
        ("learner.lora.targets=[]", "learner.lora.targets: is empty; name a layer"),
        ("learner.lora.targets=[3]", "learner.lora.targets"),
        ("learner.lora.rank=0", "learner.lora.rank = 0: input should be greater than or equal to 1"),
        ("learner.lora.r=8", "learner.lora.r: no such key"),
        ("learner.lora=true", "learner.lora = True: is a section"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(InputError) as fault:
        loaded(tmp_path, override)
    assert said in str(fault.value)
