"""The sweep: what has expired goes, what is still needed stays."""

import asyncio
import os
import sqlite3
import time
from datetime import timedelta

from sendback.service.housekeeping import Housekeeping
from tests.partners.clients import MAIL

LARGE = MAIL + (b"y" * 98 + b"\r\n") * 4000


def rows(server, query):
    connection = sqlite3.connect(server.settings.data_dir / "sendback.db")
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_content_goes_after_a_day_and_the_record_after_a_fortnight(server, clock):
    server.send_mail()
    server.call(server.app.housekeeping.sweep())
    assert rows(server, "SELECT length(body) > 0 FROM messages") == [(1,)]
    clock.advance(timedelta(hours=25))
    server.call(server.app.housekeeping.sweep())
    assert rows(server, "SELECT body, length(header) FROM messages") == [(None, 0)]
    clock.advance(timedelta(days=14))
    server.call(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM messages") == [(0,)]


def test_finished_bounces_go_after_a_fortnight_with_their_attempts(server, clock):
    answer = server.ses().send_bounce(
        OriginalMessageId=server.send_mail(),
        BounceSender="a@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
    )
    server.bounce(answer["MessageId"])
    assert rows(server, "SELECT count(*) FROM remembered_calls") == [(1,)]
    clock.advance(timedelta(days=13))
    server.call(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM outbox, attempts") == [(1,)]
    assert rows(server, "SELECT count(*) FROM remembered_calls") == [(0,)]
    clock.advance(timedelta(days=2))
    server.call(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM outbox") == [(0,)]
    assert rows(server, "SELECT count(*) FROM attempts") == [(0,)]


def test_a_blob_that_no_row_names_goes_once_it_is_old(server):
    server.send_mail(content=LARGE)
    blobs = server.settings.data_dir / "blobs"
    (kept,) = blobs.iterdir()
    for name, age in (("old-orphan", 7200), ("young-orphan", 60)):
        (blobs / name).write_bytes(b"x")
        os.utime(blobs / name, (time.time() - age,) * 2)
    os.utime(kept, (time.time() - 7200,) * 2)
    server.call(server.app.housekeeping.sweep())
    assert {path.name for path in blobs.iterdir()} == {kept.name, "young-orphan"}


def test_a_sweep_that_breaks_does_not_end_the_sweeping(clock):
    class Broken:
        calls = 0

        async def write(self, unit):
            self.calls += 1
            raise RuntimeError("a bug")

    async def story():
        broken = Broken()
        task = asyncio.create_task(Housekeeping(broken, clock, timedelta(days=14), owner="w").run())
        await asyncio.sleep(0.05)
        assert broken.calls == 1
        assert not task.done()
        task.cancel()

    asyncio.run(story())
