"""What tests of commands that see a run through need."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from services.command import preflight
from services.entry import REDIS_URL_VARIABLE
from tests.services.config.test_load import SMALLEST


@pytest.fixture
def no_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a model and data that are not there: what preflight says of them has tests of its own."""
    monkeypatch.setattr(preflight, "check", lambda config, **how: preflight.Checked())
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """A run file, a tokenizer of single characters, a config that knows fewer of them, and two rows."""
    characters = {character: number for number, character in enumerate("~0123456789+=?!")}
    tokenizer = Tokenizer(models.WordLevel(characters, unk_token="~"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="~").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(
        '{"model_type": "qwen2", "vocab_size": 14, "eos_token_id": 0}', encoding="utf-8"
    )
    settings = SMALLEST.replace("[prompts.source]", '[prompts]\ntemplate = "none"\ngrader = "number"\n[prompts.source]')
    (tmp_path / "run.toml").write_text(settings, encoding="utf-8")
    rows = ['{"prompt": "1+1=", "reference": "2"}', '{"prompt": "2+2=", "reference": "4"}']
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path
