"""[model]: the starting weights and how they are held."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from services.config.base import Strict, relative_to_file


def _folder_or_name(value: str, info: ValidationInfo) -> str:
    folder = relative_to_file(value, info)
    if folder.is_dir():
        return str(folder.resolve())
    if value.startswith((".", "/", "~")):
        return str(folder.resolve())  # meant as a folder; the check before start-up says that it is missing
    return value


ModelPath = Annotated[str, Field(min_length=1), AfterValidator(_folder_or_name)]
"""A folder, relative to the file that names it, or a Hugging Face model name."""


Dtype = Literal["float32", "bfloat16"]


class ModelConfig(Strict):
    """The starting model, in the Hugging Face layout."""

    path: ModelPath
    """A folder in the Hugging Face layout, relative to the file that names it, or a name on the Hugging Face hub."""
    max_length: int = Field(ge=2)
    """Tokens of prompt and response together that a sequence may have. A shorter limit saves memory in the engine and in
    the learner; it cannot exceed what the model was made for."""
    dtype: Dtype = "bfloat16"
    """Dtype used for sampling and for the weights on the wire. The learner keeps float32 masters in either case. Use
    float32 on CPU and for small experiments, where it makes engine and learner agree almost exactly."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run. Set it only for models whose code you have read."""


class TeacherConfig(Strict):
    """A model to distill from: the starting model's tokenizer, any architecture. Frozen, and whole on every learner rank."""

    path: ModelPath
    """A folder in the Hugging Face layout, relative to the file that names it, or a name on the Hugging Face hub."""
    dtype: Dtype = "bfloat16"
    """Dtype that the teacher is held and run in."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the teacher may run. Set it only for models whose code you have read."""
