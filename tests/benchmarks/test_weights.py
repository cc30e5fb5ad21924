"""The benchmark of the weights runs, on a model of a few thousand parameters."""

from benchmarks.weights import SIZES, report


def test_before_and_now_are_measured_and_have_the_same_digests() -> None:
    tiny = SIZES | {"vocab_size": 97, "hidden_size": 28, "intermediate_size": 32}
    rows = report(1, tiny, 1)["rows"]
    assert list(rows) == [
        "snapshot, float32",
        "snapshot, bfloat16",
        "gloo, 1 replicas",
        "gloo, 3 replicas",
        "http, 1 replica",
    ]
    assert rows["snapshot, float32"]["same"] == rows["snapshot, bfloat16"]["same"] == 1.0
    assert all(value > 0 for row in rows.values() for value in row.values())
