"""Who may ask, and under which name: bearer tokens, compared in constant time."""

import hmac
from collections.abc import Mapping


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
