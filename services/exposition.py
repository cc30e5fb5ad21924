"""What `/metrics` answers: everything that this process exports, in Prometheus' text format, with the name of its run.

The client library writes and checks every name and label again at every scrape, which took most of it: a replica exports a
thousand samples, nearly all of them vLLM's, and a scrape shares its interpreter with the engine. Here the library writes the
beginning of a line once, and a scrape puts the value behind it.
"""

from collections.abc import Iterator
from functools import lru_cache

from prometheus_client import REGISTRY, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

MOST_LINES = 16384
"""Beginnings of lines that are kept; the series of a process are far fewer."""

# When a series began is a fifth of all samples, and no rule, panel or alert asks for it.
disable_created_metrics()


def metrics_page(run: str | None) -> bytes:
    """What `/metrics` answers. run: the name of the run, a label of every sample; None: a service without a run."""
    more = () if run is None else (("run", run),)
    lines: list[str] = []
    for family in REGISTRY.collect():
        lines.append(_head(family.name, family.documentation, family.type))
        for sample in family.samples:
            beginning = _beginning(sample.name, (*sample.labels.items(), *more))
            lines.append(f"{beginning}{floatToGoString(sample.value)}\n")
    return "".join(lines).encode()


class _One(Collector):
    """One family, for the library to write."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _written(family: Metric) -> str:
    return generate_latest(_One(family)).decode()


@lru_cache(MOST_LINES)
def _head(name: str, documentation: str, kind: str) -> str:
    """The lines that say what a family is."""
    return _written(Metric(name, documentation, kind))


@lru_cache(MOST_LINES)
def _beginning(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """The line of a sample up to its value. Of two labels of one name the last counts."""
    family = Metric(name, "", "untyped")
    family.add_sample(name, dict(labels), 0)
    return _written(family).splitlines()[-1].removesuffix("0.0")
