"""The dashboards, a file each. Start with overview.py."""

from deploy.grafana.boards import learning, overview, queues, rollout, staleness, verifier, weights

BOARDS = (
    overview.BOARD,
    learning.BOARD,
    staleness.BOARD,
    rollout.BOARD,
    weights.BOARD,
    verifier.BOARD,
    queues.BOARD,
)
"""In the order in which an operator looks at them."""
