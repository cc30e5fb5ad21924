"""What a report says of the machine, where a package goes by another name or is not there."""

import importlib.metadata

from benchmarks.machine import machine


def test_the_engine_is_found_under_the_name_that_it_has_without_a_gpu() -> None:
    versions = machine(["torch", "vllm", "a-package-that-nobody-has"])["versions"]
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["a-package-that-nobody-has"] is None
    engine = [name for name in versions if name.startswith("vllm")]
    assert [versions[name] for name in engine] == [importlib.metadata.version(engine[0])]
