"""The process that tests fork others from. It has imported what these need, which takes longer than what most of them then do.

There is one in each process that runs tests, and what it imports is decided by the first to ask: so everybody asks here.
"""

import functools
import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from unittest import mock

IMPORTED = [
    "torch",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # each engine imports it when it starts, and by it torch's compiler: 2 s
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
    "tests.learner.engine_trial",
    "tests.chaos.entries",
    "tests.frozen",
]
"""By name, because the process that runs the tests may do without them. The last but one import the learner's engine and the
programs of all services."""
ONE_THREAD = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


@functools.cache
def forking() -> ForkServerContext:
    """Where to start processes that have everything imported. The one that they are forked from starts now, and ends with
    this."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with mock.patch.dict(os.environ, ONE_THREAD):
        forkserver.ensure_running()
    return context
