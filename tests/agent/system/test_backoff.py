"""The waits before something that failed is tried again."""

from __future__ import annotations

from fer_agent.system.backoff import Backoff


def test_waits_double_to_a_cap_until_reset() -> None:
    backoff = Backoff(first_s=1, longest_s=60)

    waits = [backoff.next_s() for _ in range(9)]

    for wait, full in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next_s() <= 1


def test_a_hopeless_fault_takes_the_longest_wait_at_once_and_counts_as_one_failure() -> None:
    backoff = Backoff(first_s=1, longest_s=60)

    assert backoff.next_s(hopeless=True) >= 30
    assert 1 <= backoff.next_s() <= 2


def test_waits_of_many_spread() -> None:
    assert len({Backoff(first_s=1, longest_s=60).next_s() for _ in range(20)}) > 1
