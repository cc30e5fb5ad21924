"""The memory of this machine's GPUs as metrics, read from the driver at each scrape; needs nvidia-ml-py, which vLLM brings.

The driver is asked rather than torch, because torch would begin a CUDA context on every GPU that it looks at.
"""

import logging
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger("ratchet")

USED = "ratchet_gpu_memory_used_bytes", "Memory in use on each GPU that this service sees, by any process."
TOTAL = "ratchet_gpu_memory_total_bytes", "Memory of each GPU that this service sees."


class GpuMemory(Collector):
    """Services on one machine may see the same GPU; the label `gpu` is its unique id, so that it can be counted once."""

    labelnames = ("gpu",)

    def collect(self) -> Iterator[Metric]:
        import pynvml

        used, total = (GaugeMetricFamily(*named, labels=self.labelnames) for named in (USED, TOTAL))
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory, uuid = pynvml.nvmlDeviceGetMemoryInfo(handle), pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError as fault:  # a GPU that fell off its bus must not take the page along
                log.debug("GPU %d does not say how much memory it has: %s", index, fault)
                continue
            gpu = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
            used.add_metric([gpu], memory.used)
            total.add_metric([gpu], memory.total)
        yield used
        yield total

    def describe(self) -> Iterator[Metric]:
        for named in (USED, TOTAL):
            yield GaugeMetricFamily(*named, labels=self.labelnames)


GPU_MEMORY = GpuMemory()
"""Registered by `export_gpu_memory`."""


def export_gpu_memory() -> None:
    """Export the memory of the GPUs from now on; without a driver or its library, log why there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (
        Exception
    ) as fault:  # the library is missing, or has no driver to talk to: the run works without these metrics
        log.warning("the memory of the GPUs is not exported: %s", fault)
        return
    REGISTRY.register(GPU_MEMORY)
