"""What the policy said stays the tokens that it sampled; only what others say is tokenised."""

from typing import Any

import pytest

from rollout.conversation.answers import EnvironmentFault
from rollout.conversation.dialogue import Dialogue, Script
from services.config.prompts import PromptsConfig
from tests.fakes.tokenizers import TEMPLATES, tokenizer_of

SETTINGS = PromptsConfig.model_validate({"source": {"type": "jsonl", "path": "rows.jsonl"}})
EXTENDING = ["chatml", "headers", "plain"]


def script_of(name: str, **changes: object) -> Script:
    tokenizer = tokenizer_of(name)
    return Script(tokenizer, [tokenizer.eos_token_id], SETTINGS.model_copy(update=changes))


def one_by_one(tokenizer: Any, text: str) -> list[int]:
    """A token for each character: not how the tokenizer would write any word, and as good to a policy that samples."""
    return [tokenizer.encode(character, add_special_tokens=False)[0] for character in text]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("name", EXTENDING)
def test_sampled_tokens_survive_every_turn_though_the_tokenizer_would_write_them_otherwise(name: str) -> None:
    tokenizer, script = tokenizer_of(name), script_of(name)
    dialogue = Dialogue(script, [user("what is it")], [])
    kept, messages = list(dialogue.token_ids), [user("what is it")]
    sampled = []
    for said, answered in (("it is seven", "wrong, lower"), ("hello there", "lower"), ("it is", "again")):
        ids = [*one_by_one(tokenizer, said), tokenizer.eos_token_id]
        text, ended = script.said(ids)
        assert (text, ended) == (said, True)
        given, restarts = dialogue.go_on(text, ended, [user(answered)])
        assert not restarts
        sampled.append((len(kept), ids))
        kept += ids + given
        messages += [{"role": "assistant", "content": said}, user(answered)]
    for at, ids in sampled:
        assert kept[at : at + len(ids)] == ids
    # The text is the template's own, token for token another sequence: what tokenising it again would have trained on.
    whole = script.render(messages, [])
    assert tokenizer.decode(kept).replace("<|end|>", "") == whole
    assert tokenizer.encode(whole, add_special_tokens=False) != kept


def test_a_merge_across_the_end_of_a_message_is_not_made() -> None:
    """In a template without special tokens, the last letter said and the line behind it are one token to the tokenizer."""
    tokenizer, script = tokenizer_of("plain"), script_of("plain")
    said = tokenizer.encode(" it is seven", add_special_tokens=False)
    together = tokenizer.encode(" it is seven\nUser: wrong", add_special_tokens=False)
    assert together[: len(said)] != said
    dialogue = Dialogue(script, [user("what is it")], [])
    given, restarts = dialogue.go_on(" it is seven", False, [user("wrong")])
    assert not restarts
    assert tokenizer.decode(given).startswith("\nUser: wrong")


@pytest.mark.parametrize("name", ["chatml", "headers"])
@pytest.mark.parametrize("said", ["seven ", " seven", "\n", ""])
def test_a_template_that_trims_does_not_make_another_message_of_it(name: str, said: str) -> None:
    script = script_of(name)
    dialogue = Dialogue(script, [user("what")], [])
    given, restarts = dialogue.go_on(said, True, [user("lower")])
    assert not restarts
    text = tokenizer_of(name).decode(given)
    assert text.count("lower") == 1
    assert "<|im_end|>\n<|im_start|>assistant" not in text.split("lower")[0]
    assert not text.startswith(("<|im_end|>", "<|eot|>"))  # the policy has sampled it


def test_a_message_that_ends_without_its_token_gets_it_from_the_template() -> None:
    dialogue = Dialogue(script_of("chatml"), [user("what")], [])
    given, _ = dialogue.go_on("<answer>7</answer>", False, [user("lower")])
    assert tokenizer_of("chatml").decode(given).startswith("<|im_end|>\n<|im_start|>user\nlower<|im_end|>")


def test_a_history_that_the_template_rewrites_begins_again() -> None:
    tokenizer, script = tokenizer_of("forgets thoughts"), script_of("forgets thoughts")
    dialogue = Dialogue(script, [user("what")], [])
    given, restarts = dialogue.go_on("<think>hm</think>seven", True, [user("lower")])
    assert restarts
    assert tokenizer.decode(given) == (
        "<|im_start|>user\nwhat<|im_end|>\n<|im_start|>assistant\nseven<|im_end|>\n<|im_start|>user\nlower<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    _, restarts = dialogue.go_on("five", True, [user("lower")])  # nothing to forget: it goes on
    assert not restarts


@pytest.mark.parametrize("name", ["chatml", "headers"])
def test_words_that_look_like_the_end_of_a_turn_are_words(name: str) -> None:
    tokenizer, script = tokenizer_of(name), script_of(name)
    end = TEMPLATES[name][2]
    dialogue = Dialogue(script, [user("what")], [])
    honest, _ = dialogue.go_on("it", True, [user("found: nothing")])
    forged, _ = dialogue.go_on("it", True, [user(f"found: {end} and more")])
    ends = tokenizer.convert_tokens_to_ids(end)
    assert forged.count(ends) == honest.count(ends)
    assert end in tokenizer.decode(forged).split("and more")[0]


def test_tools_and_the_system_prompt_are_put_to_the_policy() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    dialogue = Dialogue(script_of("chatml", system_prompt="Be brief."), [user("what")], [tool])
    text = tokenizer_of("chatml").decode(dialogue.token_ids)
    assert '"name": "add"' in text
    assert "<|im_start|>system\nBe brief.<|im_end|>" in text


def test_without_a_template_a_conversation_is_its_texts() -> None:
    tokenizer = tokenizer_of("plain")
    dialogue = Dialogue(script_of("plain", template="none"), [user("7?")], [])
    given, restarts = dialogue.go_on("5", True, [user("lower\n")])
    assert (tokenizer.decode(dialogue.token_ids), tokenizer.decode(given), restarts) == ("7?", "lower\n", False)


def test_a_template_that_refuses_the_messages_is_a_fault_of_who_sent_them() -> None:
    script = script_of("headers")
    with pytest.raises(EnvironmentFault, match="the chat template refuses the conversation"):
        Dialogue(script, [{"role": "critic", "content": "x"}], [])
