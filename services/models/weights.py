"""Whether a checkpoint has the weights that its model asks for: what transformers notes while it loads, as an error."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from services.errors import InputError

SHOWN = 5
"""Names shown of each kind; the rest are counted."""


def check_loaded(setting: str, path: str, loading: Mapping[str, Any]) -> None:
    """Raise InputError naming the weights that are missing, mismatched or unexpected.

    loading: transformers' `output_loading_info`. It leaves out tied weights, and those that the model's class says to ignore.
    """
    mismatched = [
        f"{name} (checkpoint {tuple(there)}, model {tuple(wanted)})"
        for name, there, wanted in sorted(loading["mismatched_keys"])
    ]
    missing, unexpected = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    faults = [
        *_named("lacks", missing),
        *_named("has with another shape", mismatched),
        *_named("has in excess", unexpected),
        *(str(message).strip() for message in loading.get("error_msgs") or ()),
    ]
    if not faults:
        return
    hint = "the missing ones would start at random" if missing else "its config.json describes another model"
    if missing and (prefix := _shared_prefix(unexpected)):
        hint = f'every name begins with "{prefix}", which a wrapper has put there; save the model without it'
    raise InputError(
        f"{setting} = {path}: the weights are not those of its config.json. The checkpoint {'; it '.join(faults)}. Get the "
        f"whole model again, or save it with save_pretrained: {hint}"
    )


def _named(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(names[:SHOWN])}{more}"]


def _shared_prefix(names: Collection[str]) -> str:
    """The first part, up to a dot, that all names share; "" where they share none."""
    firsts = {name.partition(".")[0] for name in names}
    return f"{firsts.pop()}." if len(firsts) == 1 and len(names) > 1 else ""
