"""A trained model as a Hugging Face folder: its weights, and everything else as its source has it.

transformers writes config.json and tokenizer files in the format of its own version, which older versions read without a word
and wrongly: they take the default for a rope_theta that has moved. So both are copied, byte for byte where nothing has changed.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from services.config.model import ModelConfig

COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "*.py",
)
"""Files of a model folder that are not weights."""


def write_folder(settings: ModelConfig, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write a folder that transformers and vLLM load: safetensors in shards, and the source's config and tokenizer.

    weights: under the names of a checkpoint, in the dtype to write. config.json says that dtype, and is otherwise the source's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(weights, folder)
    source = _source(settings.path)
    for pattern in COPIED:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # Both are in use: transformers 4 wrote torch_dtype, transformers 5 writes dtype.
    key = "dtype" if "dtype" in config else "torch_dtype"
    if config.get(key) != settings.dtype:
        config[key] = settings.dtype
        # Infinity in it, as some recurrent models have, stays: that is how transformers writes and reads it.
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_weights(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights}
    split = split_torch_state_dict_into_shards(tensors, filename_pattern="model{suffix}.safetensors")
    for filename, names in split.filename_to_tensors.items():
        # Cloned: parts of what was one tensor in memory share its storage, which the format refuses.
        save_file({name: tensors[name].clone() for name in names}, folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _source(path: str) -> Path:
    """The folder that the model came from; that of the local cache for a name on the hub."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, allow_patterns=list(COPIED)))
