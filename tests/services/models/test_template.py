"""A template is tried on a conversation before anything starts, and what it loses or leaves open is shown."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from services.errors import InputError
from services.models.template import check_end_tokens, check_plain_start, check_template, end_token_ids

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>", "<|user|>", "<|system|>", "<|assistant|>"]
TURN = "<|{{ m['role'] }}|>{{ m['content'] }}<|im_end|>"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
WHOLE = "{% for m in messages %}" + TURN + "{% endfor %}" + OPEN
USERS_ALONE = "{% for m in messages if m['role'] != 'system' %}" + TURN + "{% endfor %}" + OPEN
FIRST_WORD = "{% for m in messages %}{{ m['content'].split()[0] }}{% endfor %}" + OPEN
END = SPECIAL.index("<|im_end|>")


def tokenizer(template: str) -> Any:
    words = [*SPECIAL, *map(chr, range(32, 127))]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(SPECIAL)
    made: Any = PreTrainedTokenizerFast
    fast = made(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[3:],
    )
    fast.chat_template = template
    return fast


def said(template: str, *, system: bool = True, ends: tuple[int, ...] = (END,)) -> list[str]:
    return check_template("m", tokenizer(template), has_system_prompt=system, end_token_ids=ends)


def test_a_template_that_keeps_everything_is_passed_over_in_silence() -> None:
    assert said(WHOLE) == []
    assert said("<s>" + WHOLE) == []
    assert said(USERS_ALONE, system=False) == []


@pytest.mark.parametrize(
    ("template", "lost"),
    [(USERS_ALONE, "drops the system prompt: .*<|user|>"), (FIRST_WORD, "drops the system prompt")],
)
def test_a_template_that_drops_the_system_prompt_is_refused_with_the_rendered_text(template: str, lost: str) -> None:
    with pytest.raises(InputError, match=lost):
        said(template)


def test_a_template_that_changes_the_prompt_is_refused() -> None:
    with pytest.raises(InputError, match=r"drops or changes the prompt: 'Ques8tion<\|assistant\|>'"):
        said(FIRST_WORD, system=False)


def test_a_template_that_refuses_a_system_message_says_so() -> None:
    with pytest.raises(InputError, match="refuses a conversation: no system here"):
        said("{{ raise_exception('no system here') }}")


def test_a_doubled_start_is_shown() -> None:
    (warning,) = said("{{ bos_token }}<s>" + WHOLE)
    assert "begins with <s> twice" in warning
    assert "'<s><s><|system|>Sys7tem words." in warning


def test_a_template_without_a_generation_prompt_is_shown() -> None:
    (warning,) = said(WHOLE.removesuffix(OPEN))
    assert "has no generation prompt" in warning


def test_the_end_of_a_turn_has_to_be_among_the_end_tokens() -> None:
    (warning,) = said(WHOLE, ends=(2,))
    assert f"ends the assistant's turn with <|im_end|>, .* stop_token_ids = [{END}]".split(", .*")[0] in warning
    assert f"Set rollout.sampling.stop_token_ids = [{END}]" in warning


def test_a_model_without_end_tokens_is_warned_of() -> None:
    assert "has no end-of-sequence token" in check_end_tokens("m", (), ())[0]
    assert check_end_tokens("m", (2,), ()) == check_end_tokens("m", (), (5,)) == []


def test_a_start_that_the_dataset_has_to_write_is_warned_of() -> None:
    plain = tokenizer(WHOLE)
    assert check_plain_start("m", plain) == []
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert "begins every text with <s>" in check_plain_start("m", plain)[0]


def test_end_tokens_are_those_of_config_generation_config_and_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    config = SimpleNamespace(eos_token_id=7)
    assert end_token_ids(str(tmp_path), config, SimpleNamespace(eos_token_id=2), 10) == (2, 7, 9)
    assert end_token_ids(str(tmp_path), config, SimpleNamespace(eos_token_id=10), 10) == (
        7,
        9,
    )  # the model has no row 10


def test_a_name_on_the_hub_has_the_end_tokens_of_its_generation_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "models--a--name"
    for folder in ("refs", "snapshots/123"):
        (model / folder).mkdir(parents=True)
    (model / "refs" / "main").write_text("123", encoding="utf-8")
    ends = end_token_ids("a/name", SimpleNamespace(), SimpleNamespace(eos_token_id=None), 10)
    assert ends == ()
    (model / "snapshots/123/generation_config.json").write_text('{"eos_token_id": [7, 9]}', encoding="utf-8")
    assert end_token_ids("a/name", SimpleNamespace(), SimpleNamespace(eos_token_id=1), 10) == (1, 7, 9)
