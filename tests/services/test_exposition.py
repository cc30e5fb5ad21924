"""What `/metrics` answers is what the client library would write, with the name of the run on every sample."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.exposition import metrics_page
from services.metrics import waiting

STRANGE = 'a "quoted"\nline, a back\\slash, ü and {braces} 0.0'


class Late(Collector):
    """A collector of one's own, with values that are not plain numbers."""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("tests_late", "Late\nand \\ strange.", labels=["of"])
        for name, value in (("inf", float("inf")), ("nan", float("nan")), ("large", 12345678901234.5), (STRANGE, -0.5)):
            family.add_metric([name], value)
        yield family


@pytest.fixture
def of_every_kind() -> Iterator[None]:
    things = Counter("tests_things", "Things.", ["of", "by"])
    level = Gauge("tests_level", "Level.")
    seconds = Histogram("tests_seconds", "Seconds.", ["of"], buckets=(0.1, 1))
    size = Summary("tests_bytes", "Bytes.")
    build = Info("tests_build", "Build.")
    state = Enum("tests_state", "State.", states=["on", "off"])
    late = Late()
    REGISTRY.register(late)
    things.labels(STRANGE, "x").inc(3)
    things.labels("b", "y").inc()
    level.set(-1.25)
    seconds.labels(STRANGE).observe(0.5)
    size.observe(7)
    build.info({"version": "1", "of": STRANGE})
    yield
    for one in (things, level, seconds, size, build, state, late):
        REGISTRY.unregister(one)


def of_tests(page: bytes) -> list[str]:
    """The lines about the metrics above; those of the process change from one moment to the next."""
    return [line for line in page.decode().splitlines() if "tests_" in line]


@pytest.mark.usefixtures("of_every_kind")
def test_the_page_is_what_the_library_writes() -> None:
    for _ in range(2):  # the second time with what was kept
        assert of_tests(metrics_page(None)) == of_tests(generate_latest())
    assert len(of_tests(metrics_page(None))) > 20


@pytest.mark.usefixtures("of_every_kind")
def test_a_value_that_changes_is_not_kept() -> None:
    counted = Counter("tests_counted", "Counted.")
    metrics_page("a")
    counted.inc(2)
    assert 'tests_counted_total{run="a"} 2.0' in of_tests(metrics_page("a"))
    REGISTRY.unregister(counted)


def test_every_sample_has_the_name_of_the_run() -> None:
    with waiting("tests", "the page"):
        lines = metrics_page("addition").decode().splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) > 10
    assert all('run="addition"' in line for line in samples)
    assert 'ratchet_waiting{awaiting="the page",room="tests",run="addition"} 1.0' in samples
    assert 'run="' not in metrics_page(None).decode()


def test_a_service_does_not_export_when_its_series_began() -> None:
    program = (
        "from services import exposition, metrics; metrics.begin_dead_groups('learner'); "
        "print(exposition.metrics_page('r').decode())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ratchet_dead_groups_total{" in done.stdout
    assert "_created" not in done.stdout
