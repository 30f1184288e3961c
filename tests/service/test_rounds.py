"""Background work lets the event loop look at its sockets between two pieces."""

import asyncio

from sendback.service.rules.rounds import Rounds


class Loop:
    """Counts the rounds of the running event loop until it is stopped."""

    def __init__(self):
        self.rounds = 0
        self._handle = asyncio.get_running_loop().call_soon(self._count)

    def _count(self):
        self.rounds += 1
        self._handle = asyncio.get_running_loop().call_soon(self._count)

    def stop(self):
        self._handle.cancel()


async def work(rounds, name, pieces, done, loop):
    for _ in range(pieces):
        await rounds.next()
        done.append((loop.rounds, name))


def play(*pieces):
    """Return (round, worker) of each piece that workers with so many pieces each have done."""

    async def run():
        rounds, loop, done = Rounds(), Loop(), []
        workers = [work(rounds, name, n, done, loop) for name, n in enumerate(pieces)]
        await asyncio.gather(*workers)
        loop.stop()
        return done

    return asyncio.run(run())


def test_no_round_has_two_pieces():
    for pieces in ([50], [1] * 50, [3, 1, 7], [10, 10]):
        at = [number for number, _ in play(*pieces)]
        assert len(at) == sum(pieces)
        assert len(set(at)) == len(at)


def test_no_round_is_left_empty_while_work_waits():
    at = [number for number, _ in play(*[1] * 50)]
    assert at[-1] - at[0] <= 2 * len(at)


def test_all_go_on_in_turn():
    order = [name for _, name in play(3, 3, 3)]
    assert order == [0, 0, 1, 2, 0, 1, 2, 1, 2]


def test_at_rest_nobody_waits():
    async def run():
        rounds = Rounds()
        for _ in range(3):
            turn = rounds.next()
            try:
                turn.send(None)  # it would give a future if it had to wait
            except StopIteration:
                pass
            else:
                raise AssertionError("it waits")
            await asyncio.sleep(0.01)

    asyncio.run(run())


def test_who_was_cancelled_holds_up_no_other():
    async def run():
        rounds, loop, done = Rounds(), Loop(), []
        tasks = [asyncio.create_task(work(rounds, n, 1, done, loop)) for n in range(5)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await rounds.next()
        loop.stop()
        return [name for _, name in done]

    assert asyncio.run(run()) == [0, 3, 4]
