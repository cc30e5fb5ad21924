"""What can be known to be wrong before anything expensive starts: model, datasets, lengths, ports."""

import json
import socket
from pathlib import Path

from services.config import RunConfig
from services.errors import InputError
from services.prompts.dataset import load_problems
from services.prompts.rendering import Renderer


def check(config: RunConfig) -> list[str]:
    """Raises InputError. Returns warnings: settings that are allowed and rarely meant."""
    _check_model(config)
    _check_prompts(config)
    _check_ports(config)
    lag, period = config.learner.max_lag, config.learner.reference.every_steps
    warnings = []
    if config.learner.objective.type == "owpo" and period < 5 * (lag + 1):
        warnings.append(
            f"learner.reference.every_steps = {period} is below 5 x (max_lag + 1) = {5 * (lag + 1)}: "
            "the reference is then hardly older than the data, and one-way weights are noise"
        )
    return warnings


def _check_model(config: RunConfig) -> None:
    path = Path(config.model.path)
    if not path.is_absolute():
        return  # a hub name: the first service that loads it says what is wrong
    if not path.is_dir():
        raise InputError(f"model.path: no folder {path}; give a Hugging Face model folder or name")
    settings_file = path / "config.json"
    if not settings_file.is_file():
        raise InputError(f"model.path: {path} has no config.json, so it is no Hugging Face model folder")
    if not (any(path.glob("*.safetensors")) or any(path.glob("*.bin"))):
        raise InputError(f"model.path: {path} holds no weights (*.safetensors)")
    longest = json.loads(settings_file.read_text(encoding="utf-8")).get("max_position_embeddings")
    if longest is not None and config.model.max_length > longest:
        raise InputError(
            f"model.max_length = {config.model.max_length} is above the {longest} positions that the model in {path} has; "
            f"lower it to {longest} or less"
        )


def _check_prompts(config: RunConfig) -> None:
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    room = config.model.max_length - config.rollout.sampling.max_tokens
    for settings in [config.prompts, *([config.evaluation.prompts] if config.evaluation else [])]:
        for problem in load_problems(settings):
            renderer.render(problem, settings, max_prompt_tokens=room)


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
