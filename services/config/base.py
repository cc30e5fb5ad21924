"""Strict, frozen settings: unknown keys and wrong types are errors, and paths are relative to the file that names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo


class Strict(BaseModel):
    """Base of every settings section. No value is coerced, no key is ignored, and nothing changes after loading.

    The string under each field is its sentence in docs/settings.md (scripts/reference.py).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former key of this section -> its present name. The former name is an error that names the present one."""


def relative_to_file(value: str, info: ValidationInfo) -> Path:
    """The path that `value` names, relative to the folder of the file that holds the setting. Symbolic links stay."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(folder) / Path(value).expanduser()


def _resolved(value: object, info: ValidationInfo) -> object:
    return relative_to_file(value, info).resolve() if isinstance(value, str) else value


LocalPath = Annotated[Path, BeforeValidator(_resolved)]
"""A file or folder on this machine, relative to the file that names it."""
