"""Everything that is wrong with a model folder, found without a GPU and without reading a weight.

Weights are compared by the names and shapes in the headers of the checkpoint's files with the model that its config.json
describes: transformers "loads" them on torch's meta device, where tensors have shapes and no content.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from services.errors import InputError
from services.models.adapted import Shape, linear_layers
from services.models.architecture import carries_state, causal_lm_class, check_architecture
from services.models.engine import check_served
from services.models.weights import check_loaded

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that `git clone` without LFS leaves in place of a large one."""
TRAINED_DTYPES = ("F64", "F32", "F16", "BF16")
"""Dtypes of weights in safetensors that can be trained."""
COUNTS = ("I64", "I32", "BOOL")
"""Dtypes of buffers that are no weights, such as a count of batches."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model folder holds, as far as its config and the headers of its files say."""

    architecture: str
    """The model's class in transformers, or the name in its config.json where the class comes with the model."""
    vocabulary: int
    """Token ids that the model has a row for are below it."""
    positions: int | None
    """Longest sequence that the model was made for; None where its config does not say."""
    carries_state: bool
    """Whether the learner has to lay one sequence in a row (see `carries_state` in architecture.py)."""
    linear_layers: Mapping[str, Shape] | None
    """See `linear_layers` in adapted.py; None where the model's class comes with the model."""


def read_model_folder(
    setting: str,
    path: Path,
    *,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    device: Literal["cpu", "cuda"] | None = None,
) -> ModelFacts:
    """Judge a folder and say what it holds. Takes about a second, and seconds more for the first import of transformers.

    setting: the key that names the folder, as the user types it. max_length: model.max_length; None for a teacher.
    device: where the engine serves the model; None for a teacher.

    Raises InputError naming the setting, what is wrong and what to do: a file that is missing, cut short or an LFS pointer,
    code that would have to be trusted, a model that is quantized, that the engine does not serve or that engine and learner
    would not compute alike, weights that are missing, in excess or of another shape.
    """
    if not path.is_dir():
        raise InputError(f"{setting}: no folder {path}; give a Hugging Face model folder or name")
    settings = _settings(setting, path)
    _check_pointers(setting, path)
    files = _weight_files(setting, path)
    if "auto_map" in settings and not trust_remote_code and not _is_known(settings):
        raise InputError(
            f"{setting} = {path} comes with Python code of its own (auto_map in its config.json), and may not run it; read "
            "that code, then set model.trust_remote_code = true, or take a model that transformers knows"
        )
    config = _config(setting, path, trust_remote_code)
    check_architecture(setting, str(path), config, max_length)
    if device is not None:
        check_served(setting, str(path), config, device)
    _check_dtypes(setting, path, files)
    model = _check_weights(setting, path, config, files)
    if model is None:
        architecture, vocabulary = (getattr(config, "architectures", None) or ["unknown"])[0], config.vocab_size
    else:
        architecture, vocabulary = type(model).__name__, len(model.get_input_embeddings().weight)
    return ModelFacts(
        architecture=str(architecture),
        vocabulary=int(vocabulary),
        positions=getattr(config.get_text_config(), "max_position_embeddings", None),
        carries_state=carries_state(config),
        linear_layers=None if model is None else linear_layers(model),
    )


def _settings(setting: str, path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{setting}: {path} has no config.json, so it is not a Hugging Face model folder")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content.get("model_type")
    except (OSError, ValueError, AttributeError) as fault:
        raise InputError(f"{setting}: {file} cannot be read as a model's settings: {fault}; get it again") from None
    return dict(content)


def _check_pointers(setting: str, path: Path) -> None:
    for file in sorted(path.iterdir()):
        if file.is_file() and file.stat().st_size < 1024:
            with file.open("rb") as opened:
                if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise InputError(
                        f"{setting}: {file} is a pointer that git left in place of the file; run `git lfs pull` in {path}, "
                        "or download the model again"
                    )


def _weight_files(setting: str, path: Path) -> list[Path]:
    """The files that transformers would read. Raises InputError when there are none, or when an index names more."""
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (path / single).is_file():
            return [path / single]
        if (path / index).is_file():
            try:
                names = sorted(set(json.loads((path / index).read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as fault:
                raise InputError(f"{setting}: {path / index} cannot be read: {fault!r}; get it again") from None
            absent = [name for name in names if not (path / name).is_file()]
            if absent:
                raise InputError(
                    f"{setting}: {path / index} names {len(names)} files, and {len(absent)} of them are not there: "
                    f"{', '.join(absent[:5])}; download the model again"
                )
            return [path / name for name in names]
    found = ", ".join(sorted(p.name for p in path.iterdir())[:10]) or "nothing"
    raise InputError(
        f"{setting}: {path} holds no weights (model.safetensors, or its shards with model.safetensors.index.json); there is "
        f"{found}"
    )


def _is_known(settings: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return settings.get("model_type") in CONFIG_MAPPING


def _config(setting: str, path: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        with _silence():
            return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as fault:  # the library raises errors of many kinds, which all mean this to the user
        raise InputError(
            f"{setting}: {path / 'config.json'} is refused by the installed transformers: {type(fault).__name__}: {fault}. "
            "Get it again, or check with `ratchet doctor` whether transformers is too old for this model"
        ) from fault


def _check_dtypes(setting: str, path: Path, files: list[Path]) -> None:
    """Raise InputError for a file that is cut short, or that holds quantized weights."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="pt") as opened:
                kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as fault:
            raise InputError(f"{setting}: {file} is damaged or cut short: {fault}; download it again") from fault
        odd = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in (*TRAINED_DTYPES, *COUNTS)]
        if odd:
            raise InputError(
                f"{setting} = {path} holds quantized weights, such as {odd[0]}, which cannot be trained; take the "
                "unquantized model"
            )


def _check_weights(setting: str, path: Path, config: Any, files: list[Path]) -> Any:
    """Returns the model without content, or None where its class comes with the model."""
    from transformers.modeling_utils import load_state_dict

    model_class = causal_lm_class(config)
    if model_class is None:
        return None
    shapes: dict[str, Any] = {}
    try:
        with _silence():
            for file in files:
                shapes |= load_state_dict(str(file), map_location="meta")
            model, loading = model_class.from_pretrained(
                None,
                config=config,
                state_dict=shapes,
                device_map="meta",
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as fault:  # the library raises errors of many kinds, which all mean this to the user
        raise InputError(
            f"{setting} = {path}: transformers cannot put the checkpoint's weights into {model_class.__name__}: "
            f"{type(fault).__name__}: {fault}. Get the model again"
        ) from fault
    check_loaded(setting, str(path), loading)
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """transformers draws progress bars and tables of what it found; the errors here say it in a sentence."""
    from transformers.utils import logging as library

    logger, drew = logging.getLogger("transformers"), library.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if drew:
            library.enable_progress_bar()
