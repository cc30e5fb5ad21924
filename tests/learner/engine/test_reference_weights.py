"""The reference's weights next to a plain model: they score what was swapped in, however they are kept."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from learner.engine.reference_weights import ReferenceWeights, debiased_decay
from learner.engine.state_files import Saved, part_name
from services.config.reference import EmaReference, FixedReference, ReferenceConfig
from services.errors import InputError

STORAGES = [{}, {"dtype": "bfloat16"}, {"offload": True}, {"dtype": "bfloat16", "offload": True}]
INPUT = torch.linspace(-1, 1, 7)


def model(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(7, 5).to(dtype)


def step(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)


def scored(net: nn.Module, reference: ReferenceWeights) -> Tensor:
    with torch.no_grad(), reference.in_place():
        output: Tensor = net(INPUT.to(next(net.parameters()).dtype))
    return output


def by_hand(weights: list[Tensor]) -> Tensor:
    return nn.functional.linear(INPUT.to(weights[0].dtype), *weights)


def name_of(parameter: nn.Parameter) -> str:
    """The weight of this model has two dimensions, and its bias one."""
    return str(parameter.dim())


def written(reference: ReferenceWeights, folder: Path) -> Saved:
    """What a checkpoint has of it."""
    part = {"columns": reference.columns(name_of), "steps": {}, "buffers": {}}
    torch.save(part, folder / part_name(0))
    return Saved(folder)


def held(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("storage", STORAGES, ids=str)
@given(st.lists(st.sampled_from(["step", "swap", "roll back", "resume"]), max_size=12))
def test_it_scores_as_the_weights_that_the_last_swap_or_roll_back_made_it(
    storage: dict[str, object], events: list[str]
) -> None:
    net, settings = model(), ReferenceConfig.model_validate({"roll_back": 0.5, **storage})
    reference = ReferenceWeights(net, settings, sharded=False)
    now, before, may_go_back = held(net), held(net), False
    for event in events:
        if event == "step":
            step(net)
            reference.is_current = False
        elif event == "swap":
            now, before, may_go_back = held(net), now, True
            reference.swap()
        elif event == "roll back" and may_go_back:
            now, may_go_back = before, False
            reference.roll_back()
        elif event == "resume":
            with tempfile.TemporaryDirectory() as folder:
                saved, current = written(reference, Path(folder)), reference.is_current
                reference = ReferenceWeights(net, settings, sharded=False)
                reference.load(saved, name_of, is_current=current)
        current_weights = held(net)
        # Until the first step after a swap the current policy's own weights score for it: those are not rounded.
        rounded = storage.get("dtype") == "bfloat16" and not reference.is_current
        expected = by_hand([w.bfloat16().float() if rounded else w for w in now])
        assert torch.equal(scored(net, reference), expected)
        assert all(map(torch.equal, held(net), current_weights))


@given(st.lists(st.sampled_from(["step", "blend"]), max_size=12))
def test_an_average_is_the_same_offloaded(events: list[str]) -> None:
    net, averages = model(torch.bfloat16), []
    for offload in (False, True):
        averages.append(ReferenceWeights(net, EmaReference(offload=offload), sharded=False))
    expected = [w.double() for w in held(net)]
    for event in events:
        if event == "step":
            step(net)
        for average in averages:
            average.is_current = False
            if event == "blend":
                average.blend(0.9)
        if event == "blend":
            expected = [0.9 * e + 0.1 * w.double() for e, w in zip(expected, held(net), strict=True)]
    here, there = (scored(net, average) for average in averages)
    assert torch.equal(here, there)
    assert torch.allclose(here, by_hand([e.bfloat16() for e in expected]), atol=2e-2)


def test_bfloat16_is_half_of_float32_and_a_roll_back_is_one_more_copy() -> None:
    def kept(**settings: object) -> int:
        columns = ReferenceWeights(model(), ReferenceConfig.model_validate(settings), sharded=False).columns(name_of)
        return sum(values.nbytes for by_name in columns.values() for _, values in by_name.values())

    whole = 4 * (7 * 5 + 5)
    assert (kept(), kept(dtype="bfloat16"), kept(offload=True)) == (whole, whole // 2, whole)
    assert (kept(roll_back=0.5), kept(roll_back=0.5, dtype="bfloat16")) == (2 * whole, whole)


def test_a_forward_that_fails_leaves_the_current_weights() -> None:
    net = model()
    reference = ReferenceWeights(net, FixedReference(dtype="bfloat16"), sharded=False)
    step(net)
    reference.is_current, before = False, held(net)
    with pytest.raises(RuntimeError, match="out of memory"), reference.in_place():
        raise RuntimeError("out of memory")
    assert all(map(torch.equal, held(net), before))


def test_a_checkpoint_without_an_earlier_reference_stays_with_its_reference(tmp_path: Path) -> None:
    net = model()
    saved = written(ReferenceWeights(net, ReferenceConfig(), sharded=False), tmp_path)
    expected = by_hand(held(net))
    step(net)
    resumed = ReferenceWeights(net, ReferenceConfig(roll_back=0.5), sharded=False)
    resumed.load(saved, name_of, is_current=False)
    assert torch.equal(scored(net, resumed), expected)
    resumed.roll_back()
    assert torch.equal(scored(net, resumed), expected)


def test_there_is_no_roll_back_where_none_is_kept() -> None:
    with pytest.raises(InputError, match=r"set learner\.reference\.roll_back"):
        ReferenceWeights(model(), ReferenceConfig(), sharded=False).roll_back()


def test_after_eight_steps_a_debiased_average_holds_seven_percent_of_the_beginning() -> None:
    """Where the plain one holds 39 %. Each policy has the share 0.889^age over the sum of all."""
    net = model()
    reference = ReferenceWeights(net, EmaReference(decay=0.889, debiased=True), sharded=False)
    seen = [net.weight.detach().clone().double()]
    for _ in range(8):
        step(net)
        reference.blend(0.889, debiased=True)
        seen.append(net.weight.detach().clone().double())
    shares = [0.889 ** (8 - i) for i in range(9)]
    assert shares[0] / sum(shares) == pytest.approx(0.066, abs=1e-3)
    expected = sum(share / sum(shares) * weight for share, weight in zip(shares, seen, strict=True))
    with reference.in_place():
        assert torch.allclose(net.weight.double(), torch.as_tensor(expected), atol=1e-5)


def test_an_average_of_which_the_beginning_is_not_known_is_a_plain_one() -> None:
    assert debiased_decay(0.9, math.inf) == (0.9, math.inf)
