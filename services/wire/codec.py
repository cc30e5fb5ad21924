"""Records to bytes and back: msgpack with the record's kind and schema version in front; anything else is refused by name.

A change of a record's fields takes the next schema number, in the record itself and in every record that holds it.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from services.errors import WireError

if TYPE_CHECKING:
    import numpy as np  # imported where an array is looked into: a command that only looks at a run starts sooner without

R = TypeVar("R", bound=msgspec.Struct)


class Array(msgspec.Struct, frozen=True, array_like=True):
    """A one-dimensional array as little-endian bytes."""

    dtype: str
    data: bytes

    @classmethod
    def of(cls, values: Any, dtype: str) -> "Array":
        """An Array of `values`, a sequence or numpy array. dtype: a numpy name such as "<i4"."""
        import numpy as np

        return cls(dtype, np.asarray(values, dtype=dtype).tobytes())

    def numpy(self) -> "np.ndarray[Any, Any]":
        """The values, read-only. Raises WireError when dtype or length cannot be right."""
        import numpy as np

        if self.dtype not in ("<i4", "<f4"):
            raise WireError(f'array dtype "{self.dtype}" is not one of "<i4", "<f4"')
        try:
            return np.frombuffer(self.data, dtype=self.dtype)
        except ValueError as fault:
            raise WireError(f"array of {len(self.data)} bytes does not divide into {self.dtype}: {fault}") from fault

    def __len__(self) -> int:
        return len(self.data) // int(self.dtype[-1])


_KINDS: dict[type, tuple[str, int]] = {}
_encoder = msgspec.msgpack.Encoder()


def record(kind: str, schema: int) -> Any:
    """Class decorator that registers a struct under its kind and schema version."""

    def register(cls: type[R]) -> type[R]:
        _KINDS[cls] = (kind, schema)
        return cls

    return register


def encode(value: msgspec.Struct) -> bytes:
    """The bytes of a record, with its kind and schema version."""
    kind, schema = _KINDS[type(value)]
    return _encoder.encode((kind, schema, value))


def decode(raw: bytes, expected: type[R]) -> R:
    """The record in `raw`. Raises WireError, naming what came and what was expected."""
    kind, schema = _KINDS[expected]
    try:
        got_kind, got_schema, body = msgspec.msgpack.decode(raw, type=tuple[str, int, msgspec.Raw])
    except msgspec.DecodeError as fault:
        raise WireError(f"expected a {kind} record, got {len(raw)} bytes that are not a record: {fault}") from fault
    if (got_kind, got_schema) != (kind, schema):
        raise WireError(
            f"expected {kind} schema {schema}, got {got_kind} schema {got_schema}; "
            "run the same version of ratchet in every service"
        )
    try:
        return msgspec.msgpack.decode(body, type=expected)
    except msgspec.DecodeError as fault:
        raise WireError(f"damaged {kind} record: {fault}") from fault
