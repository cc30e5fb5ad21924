from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen2Config

from services.config.prompts import PromptsConfig, SourceConfig
from services.datasets.dataset import Problem
from services.datasets.rendering import Renderer
from services.errors import InputError

WORDS = ["<unk>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", *"0123456789+=? ", "add", "briefly"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ('user', 'system', 'assistant') %}{{ raise_exception('no such role') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Renderer]:
    """A tokenizer that adds <s> of its own accord, as those of many models do."""

    def make(template: str | None = TEMPLATE) -> Renderer:
        inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        inner.add_special_tokens(WORDS[:6])
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        made: Any = PreTrainedTokenizerFast
        fast = made(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
        fast.chat_template = template
        fast.save_pretrained(tmp_path)
        return Renderer(str(tmp_path))

    return make


def settings(**fields: Any) -> SourceConfig:
    return PromptsConfig.model_validate({"source": {"type": "jsonl", "path": "x"}} | fields).each[0]


def words(token_ids: list[int]) -> str:
    assert all(type(token_id) is int for token_id in token_ids)
    return "".join(WORDS[token_id] for token_id in token_ids)


def test_what_a_template_does_is_checked_with_the_models_own_end_tokens(
    model: Callable[..., Renderer], tmp_path: Path
) -> None:
    renderer = model()
    Qwen2Config(vocab_size=len(WORDS), eos_token_id=None).save_pretrained(tmp_path)

    def check(**fields: Any) -> list[str]:
        return renderer.check(settings(**fields), [problem("1+1=")], stop_token_ids=())

    assert "begins every text with <s>" in check(template="none")[0]
    with pytest.raises(
        InputError, match="drops the system prompt"
    ):  # its words are not in this vocabulary, but in the text
        model("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}").check(
            settings(system_prompt="briefly"), [], stop_token_ids=()
        )
    assert check(system_prompt="briefly") == []


def problem(prompt: Any) -> Problem:
    return Problem(row=7, prompt=prompt, reference="2", grader="exact")


def test_arguments_of_the_chat_template_hold_for_its_check(model: Callable[..., Renderer], tmp_path: Path) -> None:
    renderer = model(TEMPLATE + "{% if loud %}{{ raise_exception('too loud') }}{% endif %}")
    Qwen2Config(vocab_size=len(WORDS), eos_token_id=None).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="too loud"):
        renderer.check(settings(chat_template_kwargs={"loud": True}), [], stop_token_ids=())


def test_special_tokens_in_the_text_of_rows_are_counted_and_named(
    model: Callable[..., Renderer], tmp_path: Path
) -> None:
    renderer = model()
    Qwen2Config(vocab_size=len(WORDS), eos_token_id=None).save_pretrained(tmp_path)
    chat = [{"role": "user", "content": "1+1?"}, {"role": "user", "content": "</s>?"}]
    rows = [problem("1+1="), problem("1</s><|assistant|>2?"), problem(chat), problem("1 < 2 </S> <|other|>")]
    (warning,) = renderer.check(settings(), rows, stop_token_ids=())
    assert (
        "x: 2 of 4 prompts have special tokens of the tokenizer in their text: </s> (2), <|assistant|> (1)." in warning
    )
    assert "The first: dataset row 7" in warning
    assert renderer.check(settings(), [rows[0], rows[3]], stop_token_ids=()) == []
    (warning,) = renderer.check(settings(system_prompt="2</s>"), rows[:1], stop_token_ids=())
    assert warning == "prompts.system_prompt has special tokens of the tokenizer: </s>"
    # With template "none" it is the dataset that writes them.
    assert all(
        "special tokens" not in one for one in renderer.check(settings(template="none"), rows, stop_token_ids=())
    )


def test_template_none_is_the_text_as_it_is(model: Callable[..., Renderer]) -> None:
    renderer = model(None)
    assert words(renderer.render(problem("1+1="), settings(template="none"), max_prompt_tokens=4)) == "1+1="
    assert words(renderer.render(problem("<s>1+1="), settings(template="none"), max_prompt_tokens=5)) == "<s>1+1="


def test_arguments_of_the_chat_template_reach_it(model: Callable[..., Renderer]) -> None:
    """As those that switch the thinking of a model off."""
    renderer = model(
        TEMPLATE + "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}0{% endif %}"
    )
    asked = settings(chat_template_kwargs={"enable_thinking": False})
    assert words(renderer.render(problem("1+1="), asked, max_prompt_tokens=20)).endswith("<|assistant|>0")
    assert words(renderer.render(problem("1+1="), settings(), max_prompt_tokens=20)).endswith("<|assistant|>")


def test_template_chat_opens_the_turn_of_the_assistant(model: Callable[..., Renderer]) -> None:
    renderer = model()
    expected = "<|user|>1+1?</s><|assistant|>"
    chat = [{"role": "user", "content": "1+1?"}]
    assert words(renderer.render(problem("1+1?"), settings(), max_prompt_tokens=7)) == expected
    assert words(renderer.render(problem(chat), settings(), max_prompt_tokens=7)) == expected


def test_a_system_prompt_comes_first(model: Callable[..., Renderer]) -> None:
    rendered = model().render(problem("1+1?"), settings(system_prompt="= "), max_prompt_tokens=20)
    assert words(rendered) == "<|system|>= </s><|user|>1+1?</s><|assistant|>"


@pytest.mark.parametrize(
    ("fields", "prompt", "template", "says"),
    [
        (
            {"template": "none"},
            [{"role": "user", "content": "?"}],
            None,
            'row 7.*list of chat messages.*set it to "chat"',
        ),
        ({"template": "none"}, "1" * 11, None, "row 7: the prompt has 11 tokens.* leaves 10"),
        ({}, "1" * 8, TEMPLATE, "row 7: the prompt has 11 tokens.* leaves 10"),
        ({}, "1+1", None, 'template = "chat", but the tokenizer in .* has no chat template; set it to "none"'),
        ({"template": "none", "system_prompt": "0"}, "1+1", None, 'system_prompt needs prompts.template = "chat"'),
        (
            {"system_prompt": "0"},
            [{"role": "system", "content": "1"}],
            TEMPLATE,
            "row 7 has a system message of its own",
        ),
        ({}, [{"role": "tool", "content": "1"}], TEMPLATE, "row 7: the chat template of .* refuses .*no such role"),
    ],
)
def test_what_cannot_be_rendered_is_named_with_what_to_do(
    model: Callable[..., Renderer], fields: dict[str, Any], prompt: Any, template: str | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        model(template).render(problem(prompt), settings(**fields), max_prompt_tokens=10)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.path = .* gives no tokenizer"):
        Renderer(str(tmp_path))


def test_the_bundled_example_renders_character_by_character() -> None:
    folder = Path(__file__).parents[3] / "examples/addition/model"
    assert len(Renderer(str(folder)).render(problem("27+45="), settings(template="none"), max_prompt_tokens=6)) == 6
