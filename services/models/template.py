"""What a chat template and its tokenizer do to a conversation, found by rendering one: faults that nothing else would show.

A template is a program by the model's authors. One that leaves out the system prompt, or ends the assistant's turn with a token
that ends no response, raises nothing: the run trains on something other than what was meant.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from services.errors import InputError

SYSTEM, QUESTION, ANSWER = "Sys7tem words.", "Ques8tion words?", "Ans9wer words."
"""Words that no template contains."""
SHOWN = 400
"""Characters of a rendered text that a message shows."""

Message = dict[str, str]


def check_template(
    path: str,
    tokenizer: Any,
    *,
    has_system_prompt: bool,
    end_token_ids: Collection[int],
    template_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Render a small conversation with `tokenizer` (of transformers, with a chat template) and return what looks wrong.

    has_system_prompt: whether prompts.system_prompt or a row's own system message is used. end_token_ids: those at which the
    engine ends a response. template_options: further arguments of the template.

    Raises InputError where words of the conversation are lost: the template is then not usable for this run.
    """
    asked: list[Message] = [{"role": "user", "content": QUESTION}]
    if has_system_prompt:
        asked = [{"role": "system", "content": SYSTEM}, *asked]

    def rendered(messages: list[Message], *, opens_turn: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=opens_turn, **(template_options or {})
                )
            )
        except Exception as fault:  # a template may raise anything
            raise InputError(f"the chat template of {path} refuses a conversation: {fault}") from fault

    text = rendered(asked, opens_turn=True)
    if has_system_prompt and SYSTEM not in text:
        raise InputError(
            f"the chat template of {path} drops the system prompt: {_shown(text)}. Write it into the prompts themselves and "
            "remove prompts.system_prompt, or mend the template"
        )
    if QUESTION not in text:
        raise InputError(f"the chat template of {path} drops or changes the prompt: {_shown(text)}. Mend the template")
    found = _doubled_start(path, tokenizer, text)
    if rendered(asked, opens_turn=False) == text:
        found.append(
            f"the chat template of {path} has no generation prompt, that is, it renders a conversation alike with the "
            f"assistant's turn opened and without; responses may begin with a turn of the user. Rendered: {_shown(text)}"
        )
    answered = rendered([*asked, {"role": "assistant", "content": ANSWER}], opens_turn=False)
    return found + _unheeded_end(path, tokenizer, answered, end_token_ids)


def check_plain_start(path: str, tokenizer: Any) -> list[str]:
    """A warning where the tokenizer begins every text with a token that prompts.template = "none" leaves to the dataset."""
    start = tokenizer.bos_token_id
    if start is None or list(tokenizer.encode(QUESTION))[:1] != [start]:
        return []
    return [
        f'the tokenizer of {path} begins every text with {tokenizer.bos_token}, and prompts.template = "none" adds no token: if '
        "the model was trained with it, write it at the beginning of each prompt of the dataset"
    ]


def check_end_tokens(path: str, end_token_ids: Collection[int], stop_token_ids: Collection[int]) -> list[str]:
    """A warning where no token ends a response: each then has rollout.sampling.max_tokens tokens."""
    if end_token_ids or stop_token_ids:
        return []
    return [
        f"{path} has no end-of-sequence token in config.json, generation_config.json or its tokenizer: every response goes on "
        "to rollout.sampling.max_tokens. Name one in rollout.sampling.stop_token_ids"
    ]


def end_token_ids(path: str, config: Any, tokenizer: Any, vocabulary: int) -> tuple[int, ...]:
    """End-of-sequence tokens of the model, of its generation config and of its tokenizer, sorted: the three may differ.

    path: a folder, or a name on the hub, which is asked for the generation config unless it is here already. config: the part
    of it that is about text. vocabulary: a tokenizer may know tokens that the model has no row for.
    """
    from transformers import GenerationConfig

    found: list[Any] = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id]
    folder = _folder_of_generation_config(path)
    if folder is not None:
        found.append(GenerationConfig.from_pretrained(folder).eos_token_id)
    flat = [token for entry in found for token in (entry if isinstance(entry, list) else [entry])]
    return tuple(sorted({int(token) for token in flat if token is not None and token < vocabulary}))


def _folder_of_generation_config(path: str) -> Path | None:
    """Where the model's generation_config.json is; None for a model without one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if Path(path).is_dir():
        return Path(path) if (Path(path) / "generation_config.json").is_file() else None
    try:
        return Path(hf_hub_download(path, "generation_config.json")).parent
    except EntryNotFoundError:  # also where the hub is out of reach, and the model was downloaded without such a file
        return None


def _doubled_start(path: str, tokenizer: Any, text: str) -> list[str]:
    ids, start = tokenizer.encode(text, add_special_tokens=False), tokenizer.bos_token_id
    if start is None or list(ids[:2]) != [start, start]:
        return []
    return [
        f"the chat template of {path} begins with {tokenizer.bos_token} twice, and models are trained with one: {_shown(text)}"
    ]


def _unheeded_end(path: str, tokenizer: Any, answered: str, end_token_ids: Collection[int]) -> list[str]:
    """A warning where the token that the template puts behind the assistant's words does not end a response."""
    behind = answered.rpartition(ANSWER)[2]
    special = [
        token for token in tokenizer.encode(behind, add_special_tokens=False) if token in tokenizer.all_special_ids
    ]
    if not special or set(special) & set(end_token_ids):
        return []
    name = tokenizer.convert_ids_to_tokens(special[0])
    return [
        f"the chat template of {path} ends the assistant's turn with {name}, which is not among the tokens that end a response: "
        f"responses run on behind it. Set rollout.sampling.stop_token_ids = [{special[0]}]. Rendered: {_shown(answered)}"
    ]


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
