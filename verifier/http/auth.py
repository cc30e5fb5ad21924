"""Who may ask, and under which name: bearer tokens from the environment, compared in constant time."""

import hmac
import os
import re
from collections.abc import Mapping

from services.errors import InputError

TOKENS_VARIABLE = "RATCHET_VERIFIER_TOKENS"
TOKEN_VARIABLE = "RATCHET_VERIFIER_TOKEN"
SHORTEST_TOKEN = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class BearerTokens:
    def __init__(self, tokens: Mapping[str, str]) -> None:
        """tokens: name of the caller -> token."""
        self._tokens = {name: token.encode() for name, token in tokens.items()}

    def caller_of(self, authorization: bytes) -> str | None:
        """Name of the caller with this Authorization header; None: it holds none of the tokens. Compares with all of them,
        so that the time it takes tells nothing."""
        scheme, _, given = authorization.partition(b" ")
        found = None
        for name, token in self._tokens.items():
            if hmac.compare_digest(token, given.strip()) and scheme.lower() == b"bearer":
                found = name
        return found


def tokens_of(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Name -> token, from the environment. Raises InputError when there are none, or when one cannot be used; the error
    never shows a token."""
    text = environ.get(TOKENS_VARIABLE, "")
    advice = f"set {TOKENS_VARIABLE} to NAME=TOKEN, several separated by commas"
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs:
        raise InputError(f'verifier.authentication = "bearer", but there are no tokens: {advice}')
    for position, (name, equals, token) in enumerate(pairs, start=1):
        if not equals or not _NAME.fullmatch(name):
            raise InputError(f"{TOKENS_VARIABLE}, entry {position}: it has no usable name; {advice}")
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise InputError(
                f"{TOKENS_VARIABLE}, entry {position} ({name}): a token is at least {SHORTEST_TOKEN} printable ASCII "
                "characters without spaces"
            )
    found = {name: token for name, _, token in pairs}
    if len(found) < len(pairs):
        raise InputError(f"{TOKENS_VARIABLE} has a name twice; each caller needs its own")
    return found


def own_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that the stream worker sends: its own, or else the first of those that the service accepts."""
    if token := environ.get(TOKEN_VARIABLE):
        return token
    return next(iter(tokens_of(environ).values())) if environ.get(TOKENS_VARIABLE) else None
