"""Prompts as the model will see them, and errors that name the row."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from services.config.prompts import JsonlSource, PromptsConfig
from services.errors import InputError
from services.prompts.dataset import Problem
from services.prompts.rendering import Renderer

WORDS = ["<unk>", "<user>", "<system>", "<assistant>", "one", "two", "be", "kind"]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    return tmp_path


def put(
    folder: Path, prompt: str | list[dict[str, str]], *, room: int = 10, chat: bool = True, **changes: str
) -> list[str]:
    if chat:
        (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    settings = PromptsConfig(source=JsonlSource(path=folder), **changes)  # type: ignore[arg-type]
    problem = Problem(row=7, prompt=prompt, reference="1", grader="exact", options={})
    return [WORDS[i] for i in Renderer(str(folder)).render(problem, settings, max_prompt_tokens=room)]


def test_text_alone_has_no_additions(folder: Path) -> None:
    assert put(folder, "one two", template="none") == ["one", "two"]


def test_a_text_becomes_a_user_message(folder: Path) -> None:
    assert put(folder, "one") == ["<user>", "one", "<assistant>"]


def test_a_system_prompt_goes_first(folder: Path) -> None:
    messages = [{"role": "user", "content": "one"}]
    assert put(folder, messages, system_prompt="be kind") == ["<system>", "be", "kind", "<user>", "one", "<assistant>"]


@pytest.mark.parametrize(
    ("prompt", "settings", "complaint"),
    [
        ("one two", {"template": "none", "room": 1}, "row 7: the prompt has 2 tokens, .* leaves room for 1"),
        ([{"role": "user", "content": "one"}], {"template": "none"}, "row 7: chat messages need"),
        ("one", {"template": "none", "system_prompt": "be"}, "system_prompt needs"),
        ("one", {"chat": False}, "has no chat template; set prompts.template"),
    ],
)
def test_what_cannot_be_put_is_named(folder: Path, prompt: object, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        put(folder, prompt, **settings)  # type: ignore[arg-type]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer that loads"):
        Renderer(str(tmp_path))
