"""Problems to token ids: through the model's chat template, or as the text stands."""

from typing import Any

from services.config.prompts import PromptsConfig
from services.errors import InputError
from services.prompts.dataset import Problem


class Renderer:
    """The model's own tokenizer and chat template."""

    def __init__(self, model_path: str, *, trust_remote_code: bool = False) -> None:
        """Raises InputError when there is no tokenizer."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as fault:
            raise InputError(f"model.path: {model_path} has no tokenizer that loads: {fault}") from fault
        self._model_path = model_path

    def render(self, problem: Problem, settings: PromptsConfig, *, max_prompt_tokens: int) -> list[int]:
        """Token ids of the prompt, ready to sample from.

        template = "none": the text alone, without special tokens. Raises InputError naming the row when it is longer
        than max_prompt_tokens, or cannot be put the way the settings say.
        """
        token_ids = self._plain(problem, settings) if settings.template == "none" else self._chat(problem, settings)
        if not token_ids:
            raise InputError(
                f"row {problem.row}: the prompt {problem.prompt!r:.60} has no token in this model's vocabulary"
            )
        if len(token_ids) > max_prompt_tokens:
            raise InputError(
                f"row {problem.row}: the prompt has {len(token_ids)} tokens, and model.max_length less "
                f"rollout.sampling.max_tokens leaves room for {max_prompt_tokens}; raise model.max_length, lower max_tokens, "
                "or leave the row out"
            )
        return token_ids

    def _plain(self, problem: Problem, settings: PromptsConfig) -> list[int]:
        if not isinstance(problem.prompt, str):
            raise InputError(f'row {problem.row}: chat messages need prompts.template = "chat"')
        if settings.system_prompt is not None:
            raise InputError('prompts.system_prompt needs prompts.template = "chat"; or write it into the prompts')
        return list(self._tokenizer.encode(problem.prompt, add_special_tokens=False))

    def _chat(self, problem: Problem, settings: PromptsConfig) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise InputError(f'the tokenizer of {self._model_path} has no chat template; set prompts.template = "none"')
        asked = problem.prompt
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
        if settings.system_prompt is not None:
            messages = [{"role": "system", "content": settings.system_prompt}, *messages]
        rendered = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return list(rendered)
