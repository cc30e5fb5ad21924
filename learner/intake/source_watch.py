"""Says which of several sources gives nothing to train on, while the others keep the run going."""

import logging
from collections import Counter, defaultdict

from learner.intake.drought import WORDS

log = logging.getLogger("ratchet.learner")


class SourceWatch:
    """Counts, for each source that has a name, the groups in a row that did not reach the loss."""

    def __init__(self, limit: int) -> None:
        """limit: learner.max_unusable_groups; when a source reaches it, the log says so, once until it gives something again."""
        self._limit = limit
        self._dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def count(self, source: str, reason: str | None) -> str | None:
        """A group came back. reason: why it does not reach the loss; None: it does. Returns what the log says, if anything."""
        if not source:
            return None
        dropped = self._dropped[source]
        if reason is None:
            dropped.clear()
            return None
        dropped[reason] += 1
        if dropped.total() != self._limit:
            return None
        facts = ", ".join(f"{count} {WORDS.get(why, why)}" for why, count in dropped.most_common())
        said = (
            f"source {source}: none of its last {self._limit} groups can be trained on ({facts}). The other sources go on; check "
            f"its grader and how hard its problems are, or take it out of prompts.sources"
        )
        log.warning("%s", said)
        return said
