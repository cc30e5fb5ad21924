"""CUDA graphs know the addresses of weights: a copy from a second model into the first one's memory is what they compute with."""

import pytest
import torch
from torch import nn

from rollout.vllm.pairing import match

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device, and none is here"),
]


def test_a_graph_that_was_captured_before_computes_with_the_weights_of_after() -> None:
    device = torch.device("cuda")
    running, prepared = nn.Linear(64, 64, device=device), nn.Linear(64, 64, device=device)
    given = torch.ones(1, 64, device=device)
    with torch.no_grad():
        running(given)  # or cuBLAS would be set up while the graph is captured
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            said = running(given)
        for pair in match(running, prepared):
            pair.copy()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(said, prepared(given))
