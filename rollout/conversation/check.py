"""Whether a run's environment can be used, asked before the run starts: `python -m rollout.conversation.check`, in a process of
its own, because it imports what others wrote. It reads {"run", "problem"} as JSON and prints its warnings, one a line.
"""

import asyncio
import json
import sys
import tomllib
from pathlib import Path

from rollout.conversation.answers import Counterpart, EnvironmentFault, EnvironmentThread
from rollout.conversation.dialogue import Dialogue, Script
from rollout.environments import Start, Subject
from rollout.environments.loading import environment_maker
from services.config.load import parse
from services.config.run import RunConfig
from services.errors import InputError

SAID, ANSWERED = "Ans9wer words.", "Ques8tion words?"
"""Words that no template contains."""


def check(config: RunConfig, problem: Subject) -> list[str]:
    """Warnings. Raises InputError, naming the setting, for what no conversation can be held with.

    problem: the first of the dataset; a conversation about it is begun and given up.
    """
    assert config.environment is not None
    make, thread = environment_maker(config), EnvironmentThread()
    warnings = check_rewards(config, getattr(make(), "gives_rewards", None))
    try:
        counterpart = Counterpart(make, thread, turn_s=config.environment.turn_s, most_characters=1 << 24)
        start = asyncio.run(_begun(config, counterpart, problem))
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, InputError):  # it knows what the user got wrong
            raise fault.__cause__ from None
        return [
            *warnings,
            f'environment.name = "{config.environment.name}" did not begin a conversation about the first problem now '
            f"({fault.kind}): {fault}; the run would send it to `dead`",
        ]
    finally:
        thread.stop()
    return warnings + check_script(config, Script.of(config), start)


def check_rewards(config: RunConfig, gives: bool | None) -> list[str]:
    """Warnings. Raises InputError where learner.advantage.turns has nothing to compare.

    gives: whether the environment says that it gives rewards; None: it does not say.
    """
    assert config.environment is not None
    place = f'environment.name = "{config.environment.name}"'
    if config.learner.advantage.turns is None:
        graders = {source.grader for source in config.prompts.by_place("prompts").values()}
        if not gives or graders & {None, "environment"}:
            return []
        return [
            f'{place} gives rewards, and nothing reads them: the grader is not "environment". Name that one, or add '
            "[learner.advantage.turns]"
        ]
    if gives is None:
        return [
            f"{place} does not say whether it gives rewards (`gives_rewards`), which learner.advantage.turns compares"
        ]
    if not gives:
        raise InputError(
            f"learner.advantage.turns compares the rewards of turns, and {place} gives none with these environment.options; "
            "docs/environments.md says which options do. Set them, or leave [learner.advantage.turns] out"
        )
    return []


async def _begun(config: RunConfig, counterpart: Counterpart, problem: Subject) -> Start:
    """How a conversation about this problem begins.

    Waits for: the environment.
    Until: environment.turn_s, and as long again to close it.
    Ended by: its answer or fault.
    Metric: none; it is before a run starts.
    """
    try:
        return await counterpart.reset(problem)
    finally:
        await counterpart.close()


def check_script(config: RunConfig, script: Script, start: Start) -> list[str]:
    """Warnings about how a conversation that begins so is put to the model. Raises InputError for what cannot be."""
    settings, path = config.environment, config.model.path
    assert settings is not None
    if start.tools and script.render(start.messages, start.tools) == script.render(start.messages, ()):
        raise InputError(
            f'environment.name = "{settings.name}" brings {len(start.tools)} tools, and the chat template of {path} renders '
            "none: the model would not know of them. Take a model whose template knows tools, or give it such a template"
        )
    try:
        dialogue = Dialogue(script, start.messages, start.tools)
        words, restarts = dialogue.go_on(SAID, True, [{"role": "user", "content": ANSWERED}])
    except EnvironmentFault as fault:
        raise InputError(f"{path}: {fault}. A conversation of several turns needs a template that takes them") from None
    begun, between = len(dialogue.token_ids), len(words) - len(script.encode(ANSWERED))
    least = begun + settings.max_turns + (0 if restarts else (settings.max_turns - 1) * max(0, between))
    if least > config.model.max_length:
        raise InputError(
            f"environment.max_turns = {settings.max_turns} turns cannot fit model.max_length = {config.model.max_length}: the "
            f"first problem begins with {begun} tokens, and the template puts {max(0, between)} between two turns; that makes "
            f"at least {least}. Lower the first or raise the second"
        )
    if restarts:
        return [
            f"the chat template of {path} renders earlier turns in another way than they were sampled: each turn becomes a "
            "sequence of its own, with the whole history before it, and all of a conversation's have to fit "
            f"learner.row_tokens = {config.learner.row_tokens} together"
        ]
    return []


def main() -> None:
    given = json.loads(sys.stdin.read())
    config = parse(tomllib.loads(given["run"]), folder=Path.cwd(), origin="the run")
    try:
        for warning in check(config, Subject(**given["problem"], seed=0)):
            print(warning.replace("\n", " "))
    except InputError as error:
        sys.exit(str(error))  # to standard error, with exit code 1


if __name__ == "__main__":
    main()
