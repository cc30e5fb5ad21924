"""A simulated fleet: the run's own state machines come to their ends on a virtual clock, and counts are what they have to be."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.simulate.cases import Case, configured, measured
from benchmarks.simulate.network import Backend
from benchmarks.simulate.ranks import rank_figures
from benchmarks.simulate.virtual import Blocked, VirtualLoop


@pytest.mark.parametrize("backend", ["gloo", "nccl", "http"])
def test_a_fleet_forms_syncs_goes_on_without_one_and_takes_it_back(tmp_path: Path, backend: Backend) -> None:
    found = measured(tmp_path, 4, backend, syncs=2)
    assert found.messages == 1 + 4  # a manifest, and each confirms
    assert (found.unread, found.left_behind) == (0, 0)
    assert found.learner_gib > 14.0
    assert found.all_gib == pytest.approx(4 * 14.2, rel=0.01)
    assert 1.0 < found.sync_s < 20.0
    assert found.suspended_s < found.sync_s + 12.0  # a lease, or patience
    assert found.caught_up_s < 30.0


def test_the_learner_sends_the_more_the_more_replicas_fetch_and_as_often_as_a_tree_is_deep(tmp_path: Path) -> None:
    http, gloo = (measured(tmp_path, 8, backend, syncs=1) for backend in ("http", "gloo"))
    assert http.learner_gib == pytest.approx(8 * 14.2, rel=0.01)
    assert gloo.learner_gib == pytest.approx(4 * 14.2, rel=0.01)


def test_an_order_goes_whole_to_every_rank(tmp_path: Path) -> None:
    config = configured(tmp_path, "gloo")
    one, many = (rank_figures(config, ranks, 1000, 10, groups=4, group_size=2, tokens=8) for ranks in (1, 8))
    assert (one.order_mib, one.collectives) == (0.0, 0)
    assert many.orders_all_mib == pytest.approx(7 * many.order_mib)
    assert many.collectives > 0
    assert many.gather_gib == pytest.approx(7000 / 2**30)


def test_who_comes_first_does_not_pay_for_putting_the_fleet_together(tmp_path: Path) -> None:
    case = Case(tmp_path, 200, "nccl", 20.0)
    case.loop.pay()
    assert case.loop.time() < 0.01
    case.close()


def test_time_passes_only_where_somebody_waits() -> None:
    loop = VirtualLoop()
    ready = loop.create_future()
    asked: list[float] = []

    def ask() -> str:
        asked.append(loop.time())
        if not ready.done():
            raise Blocked(ready)
        loop.owe(0.5)
        return "there"

    async def waits() -> str:
        asyncio.get_running_loop().call_later(3.0, ready.set_result, None)
        return await asyncio.to_thread(ask)

    assert loop.run_until_complete(waits()) == "there"
    assert asked == [0.0, 3.0]
    assert loop.time() == pytest.approx(3.5)
    loop.close()


def test_what_nobody_brings_about_is_an_error() -> None:
    loop = VirtualLoop()
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        loop.run_until_complete(loop.create_future())
    loop.close()
