import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InputError
from services.verifier_access import SHORTEST_TOKEN, TOKEN_VARIABLE, TOKENS_VARIABLE, own_token, tokens_of
from verifier.http.auth import BearerTokens

ADA, BOB = "a" * SHORTEST_TOKEN, "b" * 40
TOKENS = BearerTokens({"ada": ADA, "bob": BOB})


def from_environment(text: str) -> dict[str, str]:
    return tokens_of({TOKENS_VARIABLE: text})


def test_a_caller_is_known_by_the_token() -> None:
    assert TOKENS.caller_of(f"Bearer {ADA}".encode()) == "ada"
    assert TOKENS.caller_of(f"bearer   {BOB} ".encode()) == "bob"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        ADA,
        f"Basic {ADA}",
        f"Bearer{ADA}",
        f"Bearer {ADA[:-1]}",
        f"Bearer {ADA}a",
        f"Bearer {ADA.upper()}",
        f"Bearer {ADA},{BOB}",
        f"Bearer {ADA} {BOB}",
        f"Bearer ada={ADA}",
        "Bearer \udcff",
    ],
)
def test_anything_but_a_token_is_no_caller(header: str) -> None:
    assert TOKENS.caller_of(header.encode(errors="surrogateescape")) is None


@given(st.binary(max_size=100))
def test_no_other_bytes_open_the_door_or_raise(header: bytes) -> None:
    assert TOKENS.caller_of(header) is None
    assert TOKENS.caller_of(b"Bearer " + header) is None


def test_tokens_come_from_the_environment_with_white_space_around() -> None:
    assert from_environment(f" ada={ADA} ,bob={BOB},") == {"ada": ADA, "bob": BOB}


def test_a_token_may_hold_an_equals_sign() -> None:
    assert from_environment(f"ada={ADA}==") == {"ada": ADA + "=="}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there are no tokens"),
        (" , ", "there are no tokens"),
        (ADA, "entry 1: it has no usable name"),
        (f"ada={ADA},={BOB}", "entry 2: it has no usable name"),
        (f"a b={ADA}", "entry 1: it has no usable name"),
        (f"ada={ADA},bob=short", r"entry 2 \(bob\): a token is at least 16"),
        (f"ada={ADA} b", r"entry 1 \(ada\)"),
        (f"ada={ADA}é", r"entry 1 \(ada\)"),
        (f"ada={ADA}\n{BOB}", r"entry 1 \(ada\)"),
        (f"ada={ADA},ada={BOB}", "a name twice"),
    ],
)
def test_tokens_that_cannot_be_used_are_named_by_their_place_and_never_shown(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as fault:
        from_environment(text)
    assert ADA not in str(fault.value)
    assert BOB not in str(fault.value)
    assert "short" not in str(fault.value)


def test_the_worker_shows_its_own_token_or_else_the_first_that_the_service_takes() -> None:
    both = {TOKEN_VARIABLE: "mine", TOKENS_VARIABLE: f"ada={ADA},bob={BOB}"}
    assert own_token(both) == "mine"
    assert own_token({TOKENS_VARIABLE: both[TOKENS_VARIABLE]}) == ADA
    assert own_token({}) is None
