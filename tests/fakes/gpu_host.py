"""A host with GPUs, as `ratchet doctor` sees one."""

from dataclasses import dataclass, field

from services.command.nvidia import Card, DriverFault, Holder, TorchOnGpu

GIB = 2**30


def card(
    index: str = "0",
    *,
    name: str = "NVIDIA H100 80GB HBM3",
    driver: str = "580.95.05",
    capability: tuple[int, int] | None = (9, 0),
    total_gib: float | None = 80,
    taken_gib: float = 0.5,
) -> Card:
    """A card on which nothing is wrong, but for what a test says."""
    total = None if total_gib is None else int(total_gib * GIB)
    free = None if total is None else total - int(taken_gib * GIB)
    return Card(index, f"GPU-{index}", name, driver, capability, total, free)


@dataclass
class MadeUpHost:
    """Answers what a test gives it."""

    its_cards: list[Card] = field(default_factory=lambda: [card("0"), card("1")])
    its_holders: list[Holder] = field(default_factory=list)
    its_torch: TorchOnGpu | None = field(default_factory=lambda: TorchOnGpu("13.0", nccl="2.29.7"))
    fault: str = ""

    def cards(self) -> list[Card]:
        if self.fault:
            raise DriverFault(self.fault)
        return self.its_cards

    def holders(self) -> list[Holder]:
        return self.its_holders

    def torch(self) -> TorchOnGpu | None:
        return self.its_torch
