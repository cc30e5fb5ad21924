"""What `ratchet plan` is asked: the settings, the machine, and the shape of a model that may not be here."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from services.command import shares
from services.command.nvidia import NvidiaSmi
from services.config import RunConfig
from services.errors import InputError
from services.host_memory import host_memory_bytes
from services.plan.learner import Training
from services.plan.parts import GIB
from services.plan.plan import Machine, Plan, plan
from services.plan.shape import ModelShape, count_of, described, read_config, read_shape, shape_of

SHAPE_ARGUMENTS = ("layers", "hidden", "intermediate", "heads", "vocabulary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ratchet plan` besides those of every command that reads settings."""
    parser.add_argument("--gpus", type=_count, metavar="N", help="GPUs that there are (default: those of this machine)")
    parser.add_argument("--gpu-memory", type=_gib, metavar="GIB", help="memory of each (default: as here)")
    parser.add_argument("--host-memory", type=_gib, metavar="GIB", help="memory of the host (default: this one's)")
    parser.add_argument(
        "--mean-tokens", type=_count, metavar="N", help="tokens of a usual prompt and response together"
    )
    parser.add_argument("--model-config", type=Path, metavar="FILE", help="config.json of a model that is not here")
    parser.add_argument(
        "--parameters", metavar="NUMBER", help="parameters of one that is not here, such as 7.6B; needs:"
    )
    for name in SHAPE_ARGUMENTS:
        parser.add_argument(f"--{name}", type=_count, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--kv-heads", type=_count, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--trainable", metavar="NUMBER", help="parameters that are trained (default: all)")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def plan_of(config: RunConfig, arguments: argparse.Namespace) -> Plan:
    """The plan of these settings on the machine that is described, or on this one."""
    shape = _shape(config, arguments)
    trainable = None if arguments.trainable is None else count_of("--trainable", arguments.trainable)
    teachers = tuple(
        at_hand(f"learner.teachers.{i}.path", teacher.path) for i, teacher in enumerate(config.learner.teachers)
    )
    machine = _machine(config, arguments)
    chosen = shares.chosen_here(config)
    if config.device == "cuda" and (arguments.gpus or arguments.gpu_memory):  # of what is described, the plan chooses
        chosen = [one for one in chosen if one.key != "replicas"]
    config = shares.with_choices(config, chosen)
    return plan(Training(config, shape, teachers, trainable), machine, mean_tokens=arguments.mean_tokens)


def this_machine(config: RunConfig) -> Machine:
    """What is here. A GPU's memory is not known where there is none."""
    cards = NvidiaSmi().cards_or_none() if config.device == "cuda" else []
    gpus = [card.total_bytes for card in cards if card.total_bytes is not None]
    # Whether there are enough of them is another check: these may not all be for this process.
    return Machine(None, min(gpus, default=None), host_memory_bytes(), _free_bytes(config.folder))


def _machine(config: RunConfig, arguments: argparse.Namespace) -> Machine:
    """What the arguments say that there is, and what is here where they say nothing."""
    if arguments.gpu_memory is not None and config.device == "cuda":
        return Machine(arguments.gpus, arguments.gpu_memory, arguments.host_memory)  # of another machine
    here = this_machine(config)
    if config.device == "cuda" and here.gpu_bytes is None:
        raise InputError(
            'device = "cuda", and no GPU is here whose memory could be taken; give --gpu-memory, such as --gpu-memory 80'
        )
    return replace(here, gpus=arguments.gpus, host_bytes=arguments.host_memory or here.host_bytes)


def _free_bytes(folder: Path) -> int:
    """Bytes free on the disk of a folder that may not be there yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def _shape(config: RunConfig, arguments: argparse.Namespace) -> ModelShape:
    if arguments.model_config is not None:
        return shape_of(str(arguments.model_config), read_config("--model-config", arguments.model_config))
    given = {name: getattr(arguments, name) for name in SHAPE_ARGUMENTS}
    if arguments.parameters is None:
        if any(given.values()):
            raise InputError("a shape in numbers begins with --parameters, such as --parameters 7.6B; add it")
        return at_hand("model.path", config.model.path)
    if missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise InputError(f"--parameters {arguments.parameters} alone says too little; add {', '.join(missing)}")
    return described(config.model.path, parameters=arguments.parameters, kv_heads=arguments.kv_heads, **given)


def at_hand(setting: str, path: str) -> ModelShape:
    """The shape of a model folder, or of a hub name that the local cache holds. Nothing is downloaded."""
    if Path(path).is_absolute():
        return read_shape(setting, Path(path))
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(path, "config.json")
    if isinstance(cached, str):
        return read_shape(setting, Path(cached).parent)
    raise InputError(
        f"{setting} = {path} is not on this machine, and nothing is downloaded for a plan; give its shape with --model-config "
        "config.json, or with --parameters 7.6B --layers 28 --hidden 3584 --intermediate 18944 --heads 28 --kv-heads 4 "
        "--vocabulary 152064"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _gib(text: str) -> int:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GiB above 0")
    return round(number * GIB)
