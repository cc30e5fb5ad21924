"""The judge of linear time tells a reader that looks back over all it has read."""

from tests.verifier.linear import takes_linear_time


def test_a_reader_that_looks_back_at_every_character_is_told_from_one_that_does_not() -> None:
    flood = "a" * 8_000
    assert takes_linear_time(lambda text: [character for character in text * 100 if character == "b"], flood)
    assert not takes_linear_time(lambda text: [sum(1 for _ in text[:end]) for end in range(len(text))], flood)
