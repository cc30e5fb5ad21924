"""The streams of a run have names of their own."""

from services.streams import names


def test_no_two_streams_have_the_same_name() -> None:
    streams = [value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)]
    assert len(streams) == len(set(streams)) == 5
    assert sorted(names.ALL) == sorted(streams)
