"""Strict, frozen settings: unknown keys and wrong types are errors, paths are relative to the file that names them."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo


class Strict(BaseModel):
    """Base of every settings section. No value is coerced, no key is ignored, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _beside_the_file(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        folder = (info.context or {}).get("folder", Path.cwd())
        return (Path(folder) / Path(value).expanduser()).resolve()
    return value


LocalPath = Annotated[Path, BeforeValidator(_beside_the_file)]
