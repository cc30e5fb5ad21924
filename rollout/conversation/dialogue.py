"""Messages to tokens, so that what the policy said stays the tokens that it sampled.

Only what others say is tokenised. After each message of the policy the chat template renders the conversation again; what it puts
behind that message, up to where the assistant's next turn is open, is what comes next. Where the template renders what came
before in another way (some drop earlier thoughts), the history does not go on from what was sampled, and the sequence begins
again with the whole of it.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from rollout.conversation.answers import EnvironmentFault
from rollout.environments import Message, Tool
from services.config.prompts import PromptsConfig
from services.config.run import RunConfig
from services.datasets.rendering import Renderer


class Script:
    """How a run's conversations are rendered."""

    def __init__(self, tokenizer: Any, end_token_ids: Collection[int], settings: PromptsConfig) -> None:
        """tokenizer: of transformers. end_token_ids: tokens that end a message of the policy."""
        self.settings = settings
        self.ends = frozenset(end_token_ids)
        self._tokenizer = tokenizer
        self.end_texts = [text for text in tokenizer.convert_ids_to_tokens(sorted(self.ends)) if text]
        special = {str(one) for one in tokenizer.added_tokens_decoder.values() if one.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special))) or "(?!)")

    @classmethod
    def of(cls, config: RunConfig) -> "Script":
        """The script of a run. Takes the seconds in which transformers is imported; raises InputError without a tokenizer."""
        renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
        ends = (*renderer.end_token_ids(), *config.rollout.sampling.stop_token_ids)
        return cls(renderer.own_tokenizer(), ends, config.prompts)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        """The conversation with the assistant's turn opened. Raises EnvironmentFault where the template refuses it."""
        if self.settings.template == "none":
            return "".join(message["content"] for message in messages)
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=True,
                    **self.settings.chat_template_kwargs,
                )
            )
        except Exception as fault:  # a template is a program by the model's authors and may raise anything
            raise EnvironmentFault("malformed", f"the chat template refuses the conversation: {fault}") from fault

    def encode(self, text: str) -> list[int]:
        """Tokens of what was rendered."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_around(self, text: str, words: Sequence[str]) -> list[int]:
        """Tokens of what was rendered, in which the environment's own words, in order, are never tokens with a meaning.

        A page that an environment found may have "<|im_end|>" in it: that is text, and does not end a turn.
        """
        ids: list[int] = []
        for content in filter(self._special.search, words):
            shown = content if content in text else content.strip()  # some templates trim
            if shown in text:
                before, _, text = text.partition(shown)
                ids += self.encode(before)
                ids += self._tokenizer.encode(shown, add_special_tokens=False, split_special_tokens=True)
        return ids + self.encode(text)

    def said(self, token_ids: Sequence[int]) -> tuple[str, bool]:
        """The text of a message of the policy without the token that ended it, and whether one did."""
        ended = bool(token_ids) and token_ids[-1] in self.ends
        words = list(token_ids[:-1] if ended else token_ids)
        return str(self._tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)), ended


class Dialogue:
    """One conversation as it is rendered."""

    def __init__(self, script: Script, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Raises EnvironmentFault where the template refuses the messages."""
        self._script = script
        self._messages = self._opened(messages)
        self._words: list[str] = []  # that the environment has answered
        self._tools = tools
        self._text = script.render(self._messages, tools)
        self.token_ids = script.encode(self._text)
        """What the policy reads first."""

    def begin_again(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """What the policy reads next, after its history was rewritten to this. Raises EnvironmentFault where the template refuses
        it."""
        self._messages = self._opened(messages)
        self._tools = tools
        self._words = [str(message["content"]) for message in messages if message["role"] != "assistant"]
        self._text = self._script.render(self._messages, tools)
        return self._script.encode_around(self._text, self._words)

    def _opened(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with the run's system prompt before them where they have none."""
        system = self._script.settings.system_prompt
        opens = [] if system is None or messages[0]["role"] == "system" else [{"role": "system", "content": system}]
        return [*opens, *messages]

    def go_on(self, said: str, ended: bool, messages: Sequence[Message]) -> tuple[list[int], bool]:
        """(what the policy reads next, whether it begins again with it) after it `said` this and was answered.

        ended: whether the message's own last token ended it; what the template puts there is then left out. Raises
        EnvironmentFault where the template refuses the messages.
        """
        script, words = self._script, [str(message["content"]) for message in messages]
        self._words += words
        self._messages += [{"role": "assistant", "content": said}, *messages]
        before, self._text = self._text, script.render(self._messages, self._tools)
        behind = _behind(self._text, before, said)
        if behind is None:
            return script.encode_around(self._text, self._words), True
        if ended:
            behind = self._without_end(behind)
        return script.encode_around(behind, words), False

    def _without_end(self, behind: str) -> str:
        """What the template puts behind a message, without the end of it, which the policy has sampled."""
        trimmed = behind.lstrip()
        return next((trimmed.removeprefix(end) for end in self._script.end_texts if trimmed.startswith(end)), behind)


def _behind(text: str, before: str, said: str) -> str | None:
    """What of `text` comes behind `before` and what was said; None where it does not begin with these.

    Templates may trim a message: that is the same message, and the tokens that were sampled stay.
    """
    if not text.startswith(before):
        return None
    rest = text[len(before) :]
    if rest.startswith(said):
        return rest[len(said) :]
    trimmed, kept = rest.lstrip(), said.strip()
    return trimmed[len(kept) :] if trimmed.startswith(kept) else None
