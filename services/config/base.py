"""Strict, frozen settings: unknown keys and wrong types are errors, and paths are relative to the file that names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo


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


def _plain_host(value: str) -> str:
    if "/" in value or any(character.isspace() for character in value) or not value:
        raise ValueError(f'"{value}" is not a host; give an IPv4 address or a name, without a scheme, port or path')
    if ":" in value:
        raise ValueError(
            f'"{value}" is an IPv6 address or holds a port; services listen on IPv4: give an IPv4 address or a name'
        )
    return value


Host = Annotated[str, AfterValidator(_plain_host)]
"""An IPv4 address or a name, at which one of our services listens."""
