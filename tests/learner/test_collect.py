"""What the learner claims is acknowledged once the ledger has settled it, and not before."""

import pytest

from learner.collect import Collector, Sampled
from learner.ledger import Ledger
from services.clock import Deadline
from services.wire.codec import decode, encode
from services.wire.score import DeadGroup, ScoredGroup
from tests.fakes.streams import MemoryStream
from tests.learner.tiny import scored_group


class Side:
    """Both streams and a collector; `again` is the same learner after a restart."""

    def __init__(self, ledger: Ledger | None = None, streams: tuple[MemoryStream, MemoryStream] | None = None) -> None:
        self.ledger = ledger or Ledger()
        self.scored, self.dead = streams or (MemoryStream("scored", "learner"), MemoryStream("dead", "learner"))
        self.collector = Collector(self.scored, self.dead, self.ledger, Sampled())

    def again(self) -> "Side":
        ledger = Ledger.restore(self.ledger.state())
        return Side(ledger, (self.scored.as_consumer("learner"), self.dead.as_consumer("learner")))

    def arrives(self, *numbers: int) -> None:
        for number in numbers:
            self.scored.append(encode(scored_group(number, rewards=[0.0, 1.0])))

    def dies(self, number: int) -> None:
        prompt = scored_group(number, rewards=[0.0, 1.0]).group.prompt
        self.dead.append(
            encode(
                DeadGroup(prompt=prompt, group_id=prompt.group_id, stage="trajectories", cause="worn out", payload=b"")
            )
        )

    def takes(self, count: int) -> list[int]:
        taken = []
        for _ in range(count):
            group = self.collector.training_group(Deadline.after(5.0, "groups"), lambda: False, lambda: 0.0)
            assert group is not None
            taken.append(group.group.prompt.sequence_number)
        return taken

    def looks(self) -> int | None:
        """The next group's number, or None after one look that brought nothing."""
        looked = iter([False, True])
        group = self.collector.training_group(Deadline.after(5.0, "groups"), lambda: next(looked), lambda: 0.0)
        return group and group.group.prompt.sequence_number

    def on_the_stream(self) -> list[int]:
        return [decode(p, ScoredGroup).group.prompt.sequence_number for p in self.scored.peek(100)]


@pytest.fixture
def side() -> Side:
    return Side()


def test_a_stop_before_the_step_loses_no_group(side: Side) -> None:
    side.arrives(0, 1, 2, 3, 4)
    assert side.takes(3) == [0, 1, 2]
    side.ledger.train(0)  # a step of one group; 1 and 2 were gathered for the next, and the stop came
    side.collector.acknowledge()
    assert side.on_the_stream() == [1, 2, 3, 4]
    assert side.again().takes(4) == [1, 2, 3, 4]


def test_what_a_checkpoint_holds_does_not_come_again(side: Side) -> None:
    side.arrives(0, 1)
    for number in side.takes(2):
        side.ledger.train(number)
    side.collector.acknowledge()
    assert side.on_the_stream() == []
    assert side.again().looks() is None


def test_a_repeat_is_trained_on_once_whenever_it_comes(side: Side) -> None:
    side.arrives(7, 7)  # while it waits
    assert side.takes(1) == [7]
    side.arrives(7)  # between the step's gathering and its end
    assert side.looks() is None
    side.ledger.train(7)
    side.arrives(7)  # after it
    assert side.looks() is None
    side.collector.acknowledge()
    assert side.on_the_stream() == []
    assert side.ledger.counts(8)["trained"] == 1


def test_a_group_that_also_died_is_settled_once(side: Side) -> None:
    side.arrives(3)
    assert side.takes(1) == [3]
    side.dies(3)
    assert side.looks() is None
    assert not side.ledger.is_settled(3)  # it is in hand: the step decides
    side.ledger.train(3)
    side.dies(4)
    assert side.looks() is None
    side.arrives(4)  # buried before
    assert side.looks() is None
    assert side.ledger.counts(5) == {"issued": 5, "trained": 1, "dropped": {}, "dead": 1, "outstanding": 3}
