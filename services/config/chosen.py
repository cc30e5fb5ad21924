"""Numbers that `ratchet up` chooses from the cores and GPUs of its machine, unless the run file gives them."""

from typing import Annotated, Literal

from pydantic import Field

Chosen = Annotated[int, Field(ge=1)] | Literal["auto"]


def settled(value: "int | Literal['auto']", otherwise: int = 1) -> int:
    """The number; `otherwise` where nobody has chosen one, as for a service that is started alone."""
    return otherwise if value == "auto" else value
