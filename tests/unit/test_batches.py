"""Batches: in order, one at a time, and each failure told to those whom it concerns."""

from __future__ import annotations

import asyncio

import pytest
from virtual import run_virtual

from orchestrator.runs.batches import Batches


class Disk:
    """Take a second for each batch; refuse those with an item in ``refused``."""

    def __init__(self, *refused: int) -> None:
        self.batches: list[list[int]] = []
        self.busy = 0
        self._refused = {*refused}

    async def take(self, items: list[int]) -> None:
        self.busy += 1
        assert self.busy == 1, "two batches at once"
        await asyncio.sleep(1.0)
        self.busy -= 1
        self.batches.append(items)
        if self._refused & {*items}:
            message = f"no room for {items}"
            raise OSError(message)


def put_all(batches: Batches[int], *items: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(batches.put(item)) for item in items]


def test_what_comes_while_a_batch_is_under_way_goes_together_in_order_with_the_next() -> None:
    async def main() -> None:
        disk = Disk()
        batches = Batches(disk.take)
        waiting = put_all(batches, 1)
        for number in range(2, 6):
            await asyncio.sleep(0.2)
            waiting += put_all(batches, number)
        await asyncio.gather(*waiting)
        assert disk.batches == [[1], [2, 3, 4, 5]]

    run_virtual(main())


def test_a_caller_goes_on_only_when_its_own_batch_is_done() -> None:
    async def main() -> None:
        disk = Disk()
        batches = Batches(disk.take)

        async def one(item: int) -> None:
            await batches.put(item)
            assert item in [each for batch in disk.batches for each in batch]

        await asyncio.gather(*map(one, range(20)))
        await one(20)
        assert [item for batch in disk.batches for item in batch] == list(range(21))

    run_virtual(main())


def test_a_failure_reaches_everyone_of_its_batch_and_nobody_else() -> None:
    async def main() -> None:
        disk = Disk(3)
        batches = Batches(disk.take)
        waiting = put_all(batches, 1)
        await asyncio.sleep(0.5)
        waiting += put_all(batches, 2, 3, 4)
        await asyncio.sleep(1.0)
        waiting += put_all(batches, 5)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert disk.batches == [[1], [2, 3, 4], [5]]
        assert [str(each) if each else None for each in ended] == [None, *["no room for [2, 3, 4]"] * 3, None]

    run_virtual(main())


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
def test_a_caller_that_is_cancelled_takes_nobody_with_it_and_its_item_is_handed_over(after_s: float) -> None:
    async def main() -> None:
        disk = Disk()
        batches = Batches(disk.take)
        waiting = put_all(batches, 1)
        await asyncio.sleep(0.1)
        waiting += put_all(batches, 2, 3, 4)
        await asyncio.sleep(after_s)
        waiting[2].cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in ended] == [type(None), type(None), asyncio.CancelledError, type(None)]
        assert [item for batch in disk.batches for item in batch] == [1, 2, 3, 4]
        await batches.put(5)

    run_virtual(main())


@pytest.mark.parametrize("refused", [(), (2,)])
def test_what_is_left_is_handed_over_soon_and_its_failure_is_nobodys(refused: tuple[int, ...]) -> None:
    async def main() -> None:
        disk = Disk(*refused)
        batches = Batches(disk.take)
        batches.leave(1)
        await asyncio.sleep(0.5)
        batches.leave(2)
        await batches.drain()
        assert disk.batches == [[1], [2]]
        await batches.put(3)
        assert disk.batches == [[1], [2], [3]]

    run_virtual(main())


def test_what_is_left_shares_the_fate_of_the_batch_that_somebody_waits_for() -> None:
    async def main() -> None:
        batches = Batches(Disk(1).take)
        batches.leave(1)
        with pytest.raises(OSError, match="no room"):
            await batches.put(2)

    run_virtual(main())


def test_draining_waits_for_everything_and_for_nothing_where_there_is_nothing() -> None:
    async def main() -> None:
        disk = Disk(1)
        batches = Batches(disk.take)
        await batches.drain()
        waiting = put_all(batches, 1)
        await asyncio.sleep(0.5)
        waiting += put_all(batches, 2)
        await asyncio.sleep(0)
        await batches.drain()
        assert disk.batches == [[1], [2]]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(each, OSError) for each in ended] == [True, False]

    run_virtual(main())
