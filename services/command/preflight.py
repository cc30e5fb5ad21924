"""Checks of what can be known to be wrong before anything expensive starts: libraries, model, datasets, lengths, ports, GPUs."""

import itertools
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services import numa
from services.command import reference_check
from services.command.objective_check import check_objective
from services.config import RunConfig
from services.datasets.dataset import Problem, load_problems
from services.datasets.rendering import Renderer
from services.errors import InputError

CHECKED_ROWS = 100
"""Rows of each dataset whose references are checked, spread over all of it."""
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


def check(config: RunConfig) -> list[str]:
    """Check the run. Returns warnings, of settings that are allowed and rarely meant; raises InputError for the rest."""
    if config.device == "cpu":
        _check_machine(config)
    check_objective(config)
    _check_models(config)
    problems = _check_prompts(config)
    _check_references(config, problems)
    _check_ports(config)
    gpus(config)
    reference, warnings = config.learner.reference, []
    least = 5 * (config.learner.max_lag + 1) * config.learner.mini_batches
    one_way = config.learner.objective.type in ("owpo", "owpo_reinforce")
    if one_way and reference.type == "ratchet" and reference.every_steps < least:
        warnings.append(
            f"learner.reference.every_steps = {reference.every_steps} is below 5 x (max_lag + 1) x mini_batches = {least}: "
            "the reference is then hardly older than the data, and one-way weights are noise"
        )
    return warnings


def gpus(config: RunConfig) -> list[str]:
    """The GPUs that the run takes, of those this process may use: first the learner's ranks', then each replica's.

    Raises InputError if CUDA_VISIBLE_DEVICES has too few. If it is not set, the GPUs are numbered and not counted.
    """
    if config.device == "cpu":
        return []
    needed = config.learner.ranks + config.rollout.replicas * config.rollout.tensor_parallel
    given = os.environ.get(GPUS_VARIABLE)
    if given is None:
        return [str(number) for number in range(needed)]
    # As CUDA reads it: indices or UUIDs; entries after the first invalid one are ignored.
    visible = list(itertools.takewhile(lambda name: name not in ("", "-1"), (n.strip() for n in given.split(","))))
    if len(visible) < needed:
        raise InputError(
            f'{GPUS_VARIABLE} = "{given}" has {len(visible)} GPUs, and the run takes {needed}: learner.ranks = '
            f"{config.learner.ranks}, and rollout.tensor_parallel = {config.rollout.tensor_parallel} for each of "
            f"rollout.replicas = {config.rollout.replicas}; lower these, or let it see more GPUs"
        )
    return visible[:needed]


def _check_machine(config: RunConfig) -> None:
    """What vLLM's CPU build takes from the machine, and would otherwise die without in the middle of its start."""
    numa.provide()
    if not config.rollout.enforce_eager and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError(
            "rollout.enforce_eager = false has vLLM compile the model with a C++ compiler, and there is no g++ here; "
            "install it (Debian, Ubuntu: apt-get install g++), or leave rollout.enforce_eager at true"
        )


def _check_models(config: RunConfig) -> None:
    models = [("model.path", config.model.path)]
    models += [(f"learner.teachers.{i}.path", teacher.path) for i, teacher in enumerate(config.learner.teachers)]
    for setting, name in models:
        _check_model(setting, Path(name), config.model.max_length)


def _check_model(setting: str, path: Path, max_length: int) -> None:
    if not path.is_absolute():
        return  # a hub name: the first service that loads it says what is wrong
    if not path.is_dir():
        raise InputError(f"{setting}: no folder {path}; give a Hugging Face model folder or name")
    settings_file = path / "config.json"
    if not settings_file.is_file():
        raise InputError(f"{setting}: {path} has no config.json, so it is not a Hugging Face model folder")
    if not (any(path.glob("*.safetensors")) or any(path.glob("*.bin"))):
        raise InputError(f"{setting}: {path} holds no weights (*.safetensors)")
    try:
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        longest = settings.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as fault:
        raise InputError(
            f"{setting}: {settings_file} cannot be read as a model's settings: {fault}; get it again"
        ) from None
    if longest is not None and max_length > longest:
        raise InputError(
            f"model.max_length = {max_length} is above the {longest} positions that the model in {path} has; "
            f"lower it to {longest} or less"
        )


def _check_prompts(config: RunConfig) -> dict[str, list[Problem]]:
    """The problems of each section of prompts, all of which fit the model."""
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    room = config.model.max_length - config.rollout.sampling.max_tokens
    sections = {"prompts": config.prompts} | (
        {"evaluation.prompts": config.evaluation.prompts} if config.evaluation else {}
    )
    found = {}
    for section, settings in sections.items():
        found[section] = load_problems(settings)
        for problem in found[section]:
            renderer.render(problem, settings, max_prompt_tokens=room)
    return found


def _check_references(config: RunConfig, problems: Mapping[str, Sequence[Problem]]) -> None:
    """Let the graders say whether they can judge by what the datasets give them, on a sample of the rows."""
    questions = []
    for section, rows in problems.items():
        for problem in rows[:: max(1, len(rows) // CHECKED_ROWS)]:
            place = f"{section}: row {problem.row + 1}"
            _check_endpoints(config, place, problem.grader, problem.options)
            questions.append(
                reference_check.Question(
                    place=place, grader=problem.grader, reference=problem.reference, options=problem.options
                )
            )
    faults = reference_check.faults(questions, sandbox=config.verifier.sandbox.model_dump_json())
    if faults:
        more = f" ({len(faults)} of {len(questions)} rows looked at)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0].place}: {faults[0].fault}{more}")


def _check_endpoints(config: RunConfig, place: str, grader: str, options: Mapping[str, Any]) -> None:
    if grader in ("judge", "remote"):
        name = options.get("endpoint", grader)
        if name not in config.verifier.endpoints:
            known = ", ".join(sorted(config.verifier.endpoints)) or "none"
            raise InputError(
                f'{place}: grader {grader} asks the endpoint "{name}", and there is no [verifier.endpoints.{name}]; '
                f"known: {known}"
            )
    for part in options.get("parts", []) if grader == "combine" else []:
        if isinstance(part, dict):
            _check_endpoints(config, place, str(part.get("grader")), part.get("options", {}))


def _check_ports(config: RunConfig) -> None:
    wanted = [
        ("verifier.port", config.verifier.host, config.verifier.port),
        ("learner.metrics_port", config.learner.metrics_host, config.learner.metrics_port),
        ("rollout.metrics_port", config.rollout.metrics_host, config.rollout.metrics_port),
        ("weights.port", config.weights.host, config.weights.port),
    ]
    taken: dict[tuple[str, int], str] = {}
    for setting, host, port in wanted:
        if port == 0:
            continue
        if (host, port) in taken:
            raise InputError(
                f"{setting} = {port} is also {taken[host, port]}; give each its own, or 0 for any free one"
            )
        taken[host, port] = setting
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as fault:
                raise InputError(
                    f"{setting} = {port} on {host} cannot be used: {fault.strerror}; "
                    "stop what listens there, choose another, or 0 for any free one"
                ) from fault
    if config.rollout.replicas > 1 and config.rollout.metrics_port != 0:
        raise InputError(
            f"rollout.replicas = {config.rollout.replicas} on one machine cannot share "
            f"rollout.metrics_port = {config.rollout.metrics_port}; set it to 0"
        )
