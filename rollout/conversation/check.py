"""Whether a run's environment can be used, asked before the run starts: `python -m rollout.conversation.check`, in a process of
its own, because it imports what others wrote. It reads {"run", "problems"} as JSON and answers with the fields of
services.command.environment_check.Answer; what anything else prints goes to standard error.
"""

import asyncio
import json
import logging
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.conversation.answers import Counterpart, EnvironmentFault, EnvironmentThread
from rollout.conversation.dialogue import Dialogue, Script
from rollout.environments import Environment, Start, Subject
from rollout.environments.loading import environment_maker
from rollout.environments.tools.http import doubt
from rollout.environments.verifiers.bridge import own_output, say
from services.clock import now_s
from services.config.load import parse
from services.config.run import RunConfig
from services.config.tools import HttpTool
from services.errors import InputError

SAID, ANSWERED = "Ans9wer words.", "Ques8tion words?"
"""Words that no template contains, and that no environment expects."""


@dataclass(frozen=True)
class Tried:
    """A problem to begin a conversation about."""

    subject: Subject
    grader: str
    place: str
    """Where it stands, for errors."""


class NoConversation(InputError):
    """A program of others failed at every conversation that was begun."""


def check(config: RunConfig, problems: Sequence[Tried]) -> list[str]:
    """Warnings. Raises InputError, naming the setting, for what no conversation can be held with.

    problems: those that a conversation is begun about and given up, one after the other until one works.
    """
    assert config.environment is not None
    make, thread = environment_maker(config), EnvironmentThread()
    warnings = check_rewards(config, getattr(make(), "gives_rewards", None))
    try:
        start, said = asyncio.run(_tried(config, make, thread, problems))
    finally:
        thread.stop()
    return [*warnings, *said, *check_script(config, Script.of(config), start)]


def check_rewards(config: RunConfig, gives: bool | None) -> list[str]:
    """Warnings. Raises InputError where what reads the environment's rewards has nothing to read.

    gives: whether the environment says that it gives rewards; None: it does not say.
    """
    assert config.environment is not None
    place = f'environment.name = "{config.environment.name}"'
    none = (
        f"{place} gives none with these environment.options; docs/environments.md says which options do. Set them, or"
    )
    graders = {source.grader for source in config.prompts.by_place("prompts").values()}
    if gives is False and "environment" in graders:
        raise InputError(
            f'the grader "environment" passes on the rewards of an environment, and {none} name another grader'
        )
    if config.learner.advantage.turns is None:
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
            f"learner.advantage.turns compares the rewards of turns, and {none} leave [learner.advantage.turns] out"
        )
    return []


async def _tried(
    config: RunConfig, make: Callable[[], Environment], thread: EnvironmentThread, problems: Sequence[Tried]
) -> tuple[Start, list[str]]:
    """How the first conversation begins that can be begun, and warnings. Raises InputError where none can.

    Waits for: the environment.
    Until: environment.turn_s for each call; no attempt begins after that in all.
    Ended by: its answers or faults.
    Metric: none; it is before a run starts.
    """
    assert config.environment is not None
    name, until_s = config.environment.name, now_s() + config.environment.turn_s
    warnings, faults = await _doubts(config), dict[str, str]()
    for problem in problems:
        for _ in range(config.environment.attempts):
            counterpart = Counterpart(make, thread, turn_s=config.environment.turn_s, most_characters=1 << 24)
            try:
                start = await counterpart.reset(problem.subject)
                said = await _answered(config, counterpart, problem)
            except EnvironmentFault as fault:
                if isinstance(fault.__cause__, InputError):  # it knows what the user got wrong
                    raise fault.__cause__ from None
                faults[problem.place] = str(fault)
                if now_s() > until_s:
                    raise _none_begun(name, faults) from None
            else:
                warnings += [
                    f'environment.name = "{name}" did not begin a conversation about {place}: {fault}; the run would send it to '
                    "`dead`"
                    for place, fault in faults.items()
                ]
                return start, warnings + said
            finally:
                await counterpart.close()
    raise _none_begun(name, faults)


def _none_begun(name: str, faults: Mapping[str, str]) -> NoConversation:
    """faults: place of a problem -> what came of it."""
    said = f'environment.name = "{name}": {"; ".join(dict.fromkeys(faults.values()))}'
    return NoConversation(
        f"{said}\nNo conversation can be begun about {' and '.join(faults)}: all groups of the run would go to `dead`"
    )


async def _doubts(config: RunConfig) -> list[str]:
    """Warnings about services that the tools call."""
    assert config.environment is not None
    asked = [
        doubt(tool, f"environment.tools.{number}")
        for number, tool in enumerate(config.environment.tools)
        if isinstance(tool, HttpTool)
    ]
    return [said for said in await asyncio.gather(*asked) if said is not None]


async def _answered(config: RunConfig, counterpart: Counterpart, problem: Tried) -> list[str]:
    """Go on with a conversation that was begun, in which the policy says nothing of use. Returns warnings; raises InputError for
    one that ends without the reward that its grader passes on.

    Waits for: the environment.
    Until: environment.turn_s for each answer; the last turn begins within that.
    Ended by: the end of the conversation, environment.max_turns, a fault, or that time.
    Metric: none; it is before a run starts.
    """
    settings = config.environment
    assert settings is not None
    until_s, rewards = now_s() + settings.turn_s, 0
    try:
        for _ in range(settings.max_turns):
            message = {"role": "assistant", "content": SAID, "tokens": {"read": 0, "said": 0}}
            turn = await counterpart.step(message)
            rewards += turn.reward is not None
            if turn.done and not rewards and problem.grader == "environment":
                raise InputError(
                    f'environment.name = "{settings.name}" ended a conversation about {problem.place} without a reward, and its '
                    'grader is "environment", which passes it on: have it give one in every case, also 0, or name another '
                    "grader"
                )
            if turn.done or now_s() > until_s:
                break
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, InputError):
            raise fault.__cause__ from None
        return [
            f'environment.name = "{settings.name}" failed when the policy said "{SAID}" ({fault.kind}): {fault}; where that '
            "happens the run begins the conversation again, and in the end sends it to `dead`"
        ]
    return []


def check_script(config: RunConfig, script: Script, start: Start) -> list[str]:
    """Warnings about how a conversation that begins so is put to the model. Raises InputError for what cannot be."""
    settings, path = config.environment, config.model.path
    assert settings is not None
    try:
        if start.tools and script.render(start.messages, start.tools) == script.render(start.messages, ()):
            raise InputError(
                f'environment.name = "{settings.name}" brings tools ({len(start.tools)}), and the chat template of {path} '
                "renders none: the model would not know of them. Take a model whose template knows tools, or give it such a "
                "template"
            )
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


class _WithoutTracebacks(logging.Formatter):
    """What libraries log, for a user: the error and not how it came about."""

    def formatException(self, ei: Any) -> str:
        return f"{ei[0].__name__}: {ei[1]}"


def main() -> None:
    out = own_output()
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutTracebacks())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    given = json.loads(sys.stdin.read())
    config = parse(tomllib.loads(given["run"]), folder=Path.cwd(), origin="the run")
    problems = [Tried(Subject(**one["subject"], seed=0), one["grader"], one["place"]) for one in given["problems"]]
    try:
        say(out, warnings=[warning.replace("\n", " ") for warning in check(config, problems)])
    except InputError as error:
        say(out, fault=str(error), is_of_others=isinstance(error, NoConversation))


if __name__ == "__main__":
    main()
