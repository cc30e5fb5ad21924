"""From problems to token ids for the engine, with the tokenizer of the model that is trained."""

import copy
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from services.config.prompts import SourceConfig
from services.datasets.dataset import Problem, load_problems, origin_of
from services.datasets.sources import UnreadableRow
from services.errors import InputError
from services.models.template import check_end_tokens, check_plain_start, check_template, end_token_ids
from services.numbers import count


class Renderer:
    """One tokenizer. transformers is imported when a renderer is made, because that takes seconds."""

    def __init__(self, path: str, *, trust_remote_code: bool = False) -> None:
        """path: a folder in the Hugging Face layout or a hub name. Raises InputError when it has no tokenizer."""
        from transformers import AutoTokenizer

        self._path = path
        self._trust_remote_code = trust_remote_code
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        except Exception as fault:  # the library raises errors of many kinds, which all mean this to the user
            raise InputError(
                f"model.path = {path} gives no tokenizer: {type(fault).__name__}: {fault}. Check that the folder holds "
                "tokenizer files, or that the name exists and the hub can be reached"
            ) from fault

        self._vocabulary = _vocabulary(path, trust_remote_code)

    def check(
        self, settings: SourceConfig, problems: Sequence[Problem], *, stop_token_ids: Collection[int]
    ) -> list[str]:
        """What looks wrong with the template, the end tokens and the way they meet these problems, as warnings; takes
        milliseconds, and a look at the text of each problem.

        stop_token_ids: rollout.sampling.stop_token_ids. Raises InputError where the template loses a part of the conversation.
        """
        ends = self.end_token_ids()
        warnings = check_end_tokens(self._path, ends, stop_token_ids)
        if settings.template == "none":
            return warnings + check_plain_start(self._path, self._tokenizer)
        if self._tokenizer.chat_template:
            warnings += check_template(
                self._path,
                self._tokenizer,
                has_system_prompt=settings.system_prompt is not None
                or any(role == "system" for problem in problems for role, _ in _messages(problem)),
                end_token_ids=(*ends, *stop_token_ids),
                template_options=settings.chat_template_kwargs,
            )
        return warnings + self._special_tokens(settings, problems)

    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens of the model that end a response, sorted."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self._path, trust_remote_code=self._trust_remote_code).get_text_config()
        return end_token_ids(self._path, config, self._tokenizer, config.vocab_size)

    def own_tokenizer(self) -> Any:
        """A tokenizer of transformers for the caller alone: one must not be used by two threads at once."""
        return copy.deepcopy(self._tokenizer)

    def _special_tokens(self, settings: SourceConfig, problems: Sequence[Problem]) -> list[str]:
        """Warnings about special tokens that the data writes: to the model they are the ends and beginnings of turns."""
        added = self._tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special} | set(self._tokenizer.all_special_tokens)
        looked_for = re.compile("|".join(map(re.escape, sorted(filter(None, names), key=len, reverse=True))) or "(?!)")

        def found_in(text: str) -> set[str]:
            found = set(looked_for.findall(text))
            ids = set(self._tokenizer.encode(text, add_special_tokens=False)) if found else set()
            return {name for name in found if self._tokenizer.convert_tokens_to_ids(name) in ids}

        warnings = []
        if found := found_in(settings.system_prompt or ""):
            warnings.append(f"prompts.system_prompt has special tokens of the tokenizer: {' '.join(sorted(found))}")
        counts: Counter[str] = Counter()
        holding = []
        for problem in problems:
            if found := set().union(*(found_in(content) for _, content in _messages(problem))):
                counts.update(found)
                holding.append(problem)
        if holding:
            said = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
            warnings.append(
                f"{origin_of(settings)}: {count(len(holding))} of {count(len(problems))} prompts have special tokens of the "
                f"tokenizer in their text: {said}. "
                f"The model reads them as the template's own, for example as the end of a turn. The first: "
                f"{_place(holding[0])}. Remove them from the text if they are not meant"
            )
        return warnings

    def render(self, problem: Problem, settings: SourceConfig, *, max_prompt_tokens: int) -> list[int]:
        """The prompt as 1 to max_prompt_tokens token ids. Raises InputError naming the row.

        template "chat": through the chat template, with the assistant's turn opened. template "none": the text as it is,
        without tokens that the tokenizer would add; if the model needs a beginning-of-sequence token, for example `<s>`,
        the dataset has to write it into the prompt.
        """
        token_ids = self._chat(problem, settings) if settings.template == "chat" else self._plain(problem, settings)
        if not token_ids:
            raise UnreadableRow(f"{_place(problem)}: the prompt renders to no tokens at all; remove the row")
        if len(token_ids) > max_prompt_tokens:
            raise UnreadableRow(
                f"{_place(problem)}: the prompt has {len(token_ids)} tokens, and model.max_length less "
                f"rollout.sampling.max_tokens leaves {max_prompt_tokens}; raise the first, lower the second or remove the row"
            )
        if self._vocabulary is not None and (beyond := [one for one in token_ids if one >= self._vocabulary]):
            raise UnreadableRow(
                f"{_place(problem)}: the prompt has the token {self._tokenizer.convert_ids_to_tokens(beyond[0])!r} with id "
                f"{beyond[0]}, and the model in {self._path} has rows for {self._vocabulary} ids; take the tokenizer that "
                "belongs to the model, or remove the row"
            )
        return token_ids

    def decoder(self) -> Callable[[Sequence[int]], str]:
        """A function from token ids to their text, special tokens included. It has a tokenizer of its own."""
        own = self.own_tokenizer()
        return lambda token_ids: str(own.decode(list(token_ids), skip_special_tokens=False))

    def _plain(self, problem: Problem, settings: SourceConfig) -> list[int]:
        if not isinstance(problem.prompt, str):
            raise UnreadableRow(
                f"{_place(problem)}: the prompt is a list of chat messages, which prompts.template = "
                '"none" cannot render; set it to "chat"'
            )
        if settings.system_prompt is not None:
            raise InputError(
                'prompts.system_prompt needs prompts.template = "chat"; with "none", write it into the prompts themselves'
            )
        return list(self._tokenizer.encode(problem.prompt, add_special_tokens=False))

    def _chat(self, problem: Problem, settings: SourceConfig) -> list[int]:
        if not self._tokenizer.chat_template:
            raise InputError(
                f'prompts.template = "chat", but the tokenizer in {self._path} has no chat template; set it to "none", '
                "or take a model that was trained for chat"
            )
        text = problem.prompt
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        if settings.system_prompt is not None:
            if messages[0]["role"] == "system":
                raise UnreadableRow(
                    f"{_place(problem)} has a system message of its own; remove prompts.system_prompt or that message"
                )
            messages = [{"role": "system", "content": settings.system_prompt}, *messages]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **settings.chat_template_kwargs
            )
        except Exception as fault:  # a template is a program by the model's authors and may raise anything
            raise UnreadableRow(
                f"{_place(problem)}: the chat template of {self._path} refuses the messages: {fault}"
            ) from fault
        return list(rendered)


def _vocabulary(path: str, trust_remote_code: bool) -> int | None:
    """How many token ids the model has rows for; None when its config does not say, or there is none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception:  # what is wrong with the model is said by those who look at it
        return None
    found = getattr(config.get_text_config(), "vocab_size", None)
    return found if isinstance(found, int) else None


def _messages(problem: Problem) -> list[tuple[str, str]]:
    """(role, content) of each message; a text is one of the user."""
    if isinstance(problem.prompt, str):
        return [("user", problem.prompt)]
    return [(message["role"], message["content"]) for message in problem.prompt]


def _place(problem: Problem) -> str:
    return problem.place or f"dataset row {problem.row}"


class RenderedProblems:
    """A dataset and its prompts as token ids. With skip_unreadable each prompt is rendered now and those that cannot be are
    left out; otherwise each is rendered when it is first asked for."""

    def __init__(
        self,
        settings: SourceConfig,
        renderer: Renderer,
        *,
        max_prompt_tokens: int,
        limit: int | None = None,
        leave_out: Callable[[list[Problem]], Collection[int]] = lambda _: (),
    ) -> None:
        """limit: use the first `limit` problems that can be used. leave_out: rows that cannot be, for other reasons."""
        limit = min((bound for bound in (limit, settings.max_prompts) if bound is not None), default=None)
        self.name = settings.name
        """Name of the source; empty where there is only one."""
        self._settings = settings
        self._renderer = renderer
        self._max_prompt_tokens = max_prompt_tokens
        self._rendered: dict[int, list[int]] = {}
        self.read = problems = load_problems(settings)
        """The problems as they are read, before any is left out."""
        if left_out := leave_out(problems):
            problems = [problem for problem in problems if problem.row not in left_out]
        if settings.skip_unreadable:
            problems = list(itertools.islice(filter(self._can_be_rendered, problems), limit))
        if not problems:
            raise InputError(f"no row of the dataset {origin_of(settings)} can be used; `ratchet config` says why")
        self.problems = problems[:limit]

    def _can_be_rendered(self, problem: Problem) -> bool:
        try:
            self.token_ids(problem)
        except UnreadableRow:
            return False
        return True

    def check(self, stop_token_ids: Collection[int]) -> list[str]:
        """Warnings about how these problems are put to the model; see `Renderer.check`."""
        return self._renderer.check(self._settings, self.problems, stop_token_ids=stop_token_ids)

    def token_ids(self, problem: Problem) -> list[int]:
        """The rendered prompt. Raises InputError naming the row."""
        if problem.row not in self._rendered:
            rendered = self._renderer.render(problem, self._settings, max_prompt_tokens=self._max_prompt_tokens)
            self._rendered[problem.row] = rendered
        return self._rendered[problem.row]
