"""kill -9 in the middle of a sweep: what was swept is gone whole, the rest goes the next time."""

import pytest

from tests.partners.queue import fill
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for

ROWS = 20_000


def count(server, table):
    return server.query(f"SELECT count(*) FROM {table}")[0][0]


@pytest.mark.parametrize("kills", [1, 3])
def test_a_sweep_that_was_killed_goes_on_after_the_restart(tmp_path, kills):
    server = Sendback(tmp_path)
    fill(server.data_dir, ["ann@sender.example"] * ROWS)
    server.query("UPDATE outbox SET state = 'delivered'")
    left = ROWS
    for number in range(kills):
        # Each start is later: the turn of a process that died ends after ten minutes.
        server.environment["SENDBACK_CLOCK_OFFSET"] = f"{20 * 24 + number}h"
        server.start()
        wait_for(lambda before=left: count(server, "outbox") < before, 60)
        server.kill()
        left = count(server, "outbox")
        assert count(server, "outbox_contents") == left
    assert 0 < left < ROWS
    assert "is sound" in server.run("db", "check").stdout
    server.environment["SENDBACK_CLOCK_OFFSET"] = f"{21 * 24}h"
    server.start()
    try:
        wait_for(lambda: count(server, "outbox") == 0, 60)
    finally:
        server.stop()
    assert count(server, "outbox_contents") == 0
