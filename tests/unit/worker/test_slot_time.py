"""The share of the slots' time in which a trainer computes."""

from hpo.worker.slot_time import SlotTime


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_empty_slot_and_the_host_count_as_idle() -> None:
    clock, host = Clock(), Clock()
    slots = SlotTime(host, clock)
    slots.start(1)
    with slots.computing():
        clock.now += 10
        host.now += 1
    assert slots.end(1) == (10, 9)
    clock.now += 2  # the slot waits for a claim
    slots.start(2)
    slots.start(3)  # another slot, whose time begins here
    with slots.computing():
        clock.now += 4
    clock.now += 1  # reports
    assert slots.end(2) == (7, 4)
    assert slots.end(3) == (5, 4)
    assert slots.end(4) is None
