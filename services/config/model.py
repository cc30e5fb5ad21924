"""[model]: the starting weights and how they are held."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from services.config.base import Strict


def _folder_beside_the_file(value: str, info: ValidationInfo) -> str:
    folder = Path((info.context or {}).get("folder", Path.cwd())) / Path(value).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if value.startswith((".", "/", "~")):
        return str(folder.resolve())  # meant as a folder; the check before start-up says that it is missing
    return value


ModelPath = Annotated[str, Field(min_length=1), AfterValidator(_folder_beside_the_file)]
"""A folder, relative to the file that names it, or a Hugging Face model name."""


class ModelConfig(Strict):
    """The starting model, in the Hugging Face layout."""

    path: ModelPath
    max_length: int = Field(ge=2)
    """Tokens of prompt and response together that a sequence may have."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What the engine samples with, and the weights travel in. The learner holds float32 masters in either case."""
    trust_remote_code: bool = False


class TeacherConfig(Strict):
    """A model to distil from: the starting model's tokenizer, any architecture. Frozen, whole on every learner rank."""

    path: ModelPath
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    trust_remote_code: bool = False
