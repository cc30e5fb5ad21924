"""The benchmark of the weights runs, on a model of a few thousand parameters."""

from benchmarks.weights import SIZES, report


def test_before_and_now_are_measured_and_have_the_same_digests() -> None:
    tiny = SIZES | {"vocab_size": 97, "hidden_size": 28, "intermediate_size": 32}
    rows = report(1, tiny, 1)["rows"]
    assert list(rows) == [
        "snapshot, float32",
        "snapshot, bfloat16",
        "gloo, replicas: 1",
        "gloo, replicas: 3",
        "http, replicas: 1",
    ]
    assert rows["snapshot, float32"]["same"] == rows["snapshot, bfloat16"]["same"] == 1.0
    assert all(value > 0 for row in rows.values() for value in row.values())
