"""Strict, frozen settings: unknown keys and wrong types are errors, paths are relative to the file that names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo


class Strict(BaseModel):
    """Base of every settings section. No value is coerced, no key is ignored, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former key of this section -> its present name. The former name is an error that names the present one."""


def _beside_the_file(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        folder = (info.context or {}).get("folder", Path.cwd())
        return (Path(folder) / Path(value).expanduser()).resolve()
    return value


LocalPath = Annotated[Path, BeforeValidator(_beside_the_file)]
