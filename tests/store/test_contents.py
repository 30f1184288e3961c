"""The contract of content stores, on each of them."""

import asyncio
import io
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sendback.config.types import ContentAddress
from sendback.mail.address import Address
from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath
from sendback.service.housekeeping import Housekeeping
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.content.database import CHUNK_OCTETS
from sendback.store.engine.content.model import (
    BlockFile,
    ContentGoneError,
    ContentUnavailableError,
    in_blocks,
)
from sendback.store.engine.errors import ClaimLostError
from sendback.store.engine.integrity import check_store
from sendback.store.engine.store import Store
from sendback.store.messages.inspection import DeleteMessages
from sendback.store.messages.messages import AddMessages, Body, FindBody, ReceivedMessage
from tests.conftest import NOW
from tests.partners.content_stores import KINDS, place

ACCOUNT = "000000000000"
HEADER = b"Subject: x\r\n"
SIZES = [0, 1, CHUNK_OCTETS - 1, CHUNK_OCTETS, CHUNK_OCTETS + 1, 6 * 2**20 + 7]


@pytest.fixture(params=KINDS)
def site(request, tmp_path, credentials):
    return place(request.param, tmp_path, lambda: request.getfixturevalue("object_server"))


@pytest.fixture
def store(site):
    instance = site.open()
    yield instance
    instance.close()


def octets(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def pieces(body, size=100_000):
    return [body[start : start + size] for start in range(0, len(body), size)]


def message(name, size, account=ACCOUNT):
    envelope = Envelope(
        client=Client(ip="127.0.0.1", helo="x"),
        reverse_path=ReversePath(Address("ann", "sender.example")),
        recipients=(Recipient(Address("bob", "example.com")),),
    )
    expires = NOW + timedelta(days=1)
    size += len(HEADER)
    return ReceivedMessage(name, account, NOW, expires, envelope, size, HEADER)


async def receive(store, name, body, accounts=(ACCOUNT,)):
    """Stores a message with this body as receiving does; its blob."""
    for account in accounts:
        await store.write(AddAccount(account, NOW))
    blob = await store.contents.keep(name, pieces(body))
    rows = tuple(message(name, len(body), account) for account in accounts)
    await store.write(AddMessages(rows, Body(None, blob)))
    return blob


async def read(store, blob, size):
    body = await store.contents.body(blob, size)

    def work():
        with body.open() as file:
            return file.read()

    return await asyncio.to_thread(work)


async def ledger(store):
    query = text("SELECT blob, state FROM loose_contents")
    return [tuple(row) for row in await store.read(lambda c: c.execute(query).all())]


def sweep(store, clock):
    return Housekeeping(store, clock, timedelta(days=14), owner="w").sweep()


async def age_claims(store):
    """As if an hour had passed since the contents were claimed."""
    sql = text("UPDATE loose_contents SET since = since - 3700000")
    await store.write(lambda connection: connection.execute(sql))


@pytest.mark.parametrize("size", SIZES)
def test_a_content_is_read_as_it_was_written(store, site, size):
    async def story():
        body = octets(size)
        blob = await receive(store, "m1", body)
        assert await read(store, blob, size) == body
        assert await ledger(store) == []
        stored = await store.contents.body(blob, size)
        with stored.as_file() as path:
            assert path.read_bytes() == body
        with stored.open() as file:
            for offset in (size // 2, 0, max(0, size - 3), size):
                assert file.seek(offset) == offset
                assert file.read(5) == body[offset : offset + 5]
        # Another process of the installation finds it without being told.
        other = Store(site.url, site.folder)
        assert await read(other, blob, size) == body
        other.close()
        assert list(store.contents.spool_directory.iterdir()) == []

    asyncio.run(story())
    assert check_store(site.url, site.folder) == []


def test_a_content_without_a_message_is_swept_once_its_claim_is_old(store, clock):
    """kill -9 between the content and its row leaves exactly this."""

    async def story():
        kept = await receive(store, "kept", octets(1000))
        orphan = await store.contents.keep("orphan", pieces(octets(700_000)))
        await sweep(store, clock)
        assert await read(store, orphan, 700_000) == octets(700_000)  # it may be a slow node's
        await age_claims(store)
        await sweep(store, clock)
        with pytest.raises(ContentGoneError):
            await read(store, orphan, 700_000)
        assert await read(store, kept, 1000) == octets(1000)
        assert await ledger(store) == []

    asyncio.run(story())


def test_a_node_that_was_too_slow_acknowledges_nothing(store, clock):
    """Its content was swept before its row came: no message may name what is not there."""

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        blob = await store.contents.keep("slow", pieces(octets(1000)))
        await age_claims(store)
        await sweep(store, clock)
        late = AddMessages((message("slow", 1000),), Body(None, blob))
        quick = AddMessages((message("quick", 3),), Body(b"abc"))
        results = await asyncio.gather(
            store.write(late), store.write(quick), return_exceptions=True
        )
        assert isinstance(results[0], ClaimLostError)
        assert results[1] is None  # its neighbour in the group is not harmed
        assert await store.read(FindBody(ACCOUNT, "slow")) is None
        assert await store.read(FindBody(ACCOUNT, "quick")) == Body(b"abc")
        # The writer may have finished after the sweep: the content is removed once more.
        assert await ledger(store) == [(blob, "unused")]
        await sweep(store, clock)
        assert await ledger(store) == []

    asyncio.run(story())


def test_a_content_goes_with_the_last_message_that_has_it(store, clock):
    async def story():
        accounts = (ACCOUNT, "111111111111")
        blob = await receive(store, "shared", octets(1000), accounts)
        sql = text("UPDATE messages SET expires_at = 0 WHERE account_id = :account")
        for number, account in enumerate(accounts):
            await store.write(
                lambda connection, account=account: connection.execute(sql, {"account": account})
            )
            await sweep(store, clock)
            if number == 0:
                assert await read(store, blob, 1000) == octets(1000)
        with pytest.raises(ContentGoneError):
            await read(store, blob, 1000)
        assert await ledger(store) == []

    asyncio.run(story())


def test_a_content_that_fails_half_way_leaves_nothing(store):
    def broken():
        yield octets(1_500_000)
        raise OSError("the spool cannot be read")

    async def story():
        with pytest.raises(OSError, match="the spool cannot be read"):
            await store.contents.keep("broken", broken())
        assert await ledger(store) == []
        other = await store.contents.keep("other", [b"x"])
        with pytest.raises(ContentGoneError):
            await read(store, other.replace("other", "broken"), 1_500_000)

    asyncio.run(story())


def test_reading_while_it_is_deleted_ends_with_gone(store):
    """Whole pieces come until then, and never a wrong octet."""
    size = 5 * 2**20

    async def story():
        blob = await receive(store, "m1", octets(size))
        stored = await store.contents.body(blob, size)

        def work():
            with stored.open() as file:
                assert file.read(100_000) == octets(100_000)
                asyncio.run_coroutine_threadsafe(remove(), loop).result()
                found = file.read()  # of a file, what is open stays
                assert found == octets(size)[100_000:]

        async def remove():
            await store.contents.remove([blob])

        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(work)
        except ContentGoneError:
            return
        assert ":" not in blob  # only the directory

    asyncio.run(story())


def test_a_content_of_another_size_is_not_complete(store, site):
    async def story():
        blob = await receive(store, "m1", octets(1000))
        with pytest.raises(ContentGoneError, match="is not complete"):
            await read(store, blob, 1001)
        sql = text("UPDATE messages SET size = size + 1")
        await store.write(lambda connection: connection.execute(sql))

    asyncio.run(story())
    (problem,) = check_store(site.url, site.folder)
    assert "is damaged" in problem
    assert "1000 octets, not 1001" in problem


def test_the_check_finds_a_body_that_is_gone(store, site):
    async def story():
        blob = await receive(store, "m1", octets(1000))
        await store.contents.remove([blob])
        return blob

    blob = asyncio.run(story())
    problems = check_store(site.url, site.folder)
    assert problems == [f"the body of message m1 is gone: there is no blob {blob}"]


def test_clearing_removes_all(store):
    async def story():
        blob = await receive(store, "m1", octets(600_000))
        await store.contents.clear()
        with pytest.raises(ContentGoneError):
            await read(store, blob, 600_000)
        assert await read(store, await receive(store, "m2", b"abc"), 3) == b"abc"

    asyncio.run(story())


def test_after_a_change_of_the_setting_old_content_is_read_and_swept(store, site, clock):
    async def story():
        blob = await receive(store, "old", octets(700_000))
        for kind in ("directory", "database"):
            other = Store(site.url, site.folder, ContentAddress(kind))
            newer = await receive(other, f"new-{kind}", octets(3000))
            assert await read(other, blob, 700_000) == octets(700_000)
            assert await read(other, newer, 3000) == octets(3000)
            other.close()
        sql = text("UPDATE messages SET expires_at = 0")
        await store.write(lambda connection: connection.execute(sql))
        await sweep(store, clock)
        for name in (blob, newer):
            with pytest.raises(ContentGoneError):
                await read(store, name, 3000)

    asyncio.run(story())


def test_many_contents_at_once(store):
    """More than there are threads; each is whole."""

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        names = [f"m{number}" for number in range(24)]
        bodies = {name: octets(300_000 + number) for number, name in enumerate(names)}
        blobs = await asyncio.gather(*(receive(store, name, bodies[name]) for name in names))
        found = await asyncio.gather(
            *(read(store, b, len(bodies[n])) for n, b in zip(names, blobs, strict=True))
        )
        assert found == [bodies[name] for name in names]

    asyncio.run(story())


def test_other_mail_is_not_delayed_by_a_large_one(store):
    """A content of 24 MB takes a while; single rows are committed meanwhile."""

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        body = octets(24 * 2**20)
        keeping = asyncio.create_task(store.contents.keep("large", pieces(body)))
        longest, count = 0.0, 0
        while not keeping.done():
            started = time.monotonic()
            await store.write(AddMessages((message(f"s{count}", 3),), Body(b"abc")))
            longest = max(longest, time.monotonic() - started)
            count += 1
            await asyncio.sleep(0.005)
        await keeping
        return longest, count

    longest, count = asyncio.run(story())
    print(f"{count} small mails meanwhile, the slowest took {longest * 1000:.0f} ms")
    assert count >= 3
    assert longest < 2.0  # the whole content in one transaction takes as long as itself


def test_too_many_waiting_contents_are_refused_at_once(store):
    go = threading.Event()

    def slow():
        go.wait(30)
        yield b"x"

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        keeping = [
            asyncio.create_task(store.contents.keep(f"m{number}", slow())) for number in range(64)
        ]
        await asyncio.sleep(0.5)
        with pytest.raises(ContentUnavailableError, match="too many mails wait"):
            await store.contents.keep("one more", [b"x"])
        go.set()
        assert len(await asyncio.gather(*keeping)) == 64

    asyncio.run(story())


def test_two_nodes_that_delete_the_last_messages_of_a_body_remove_it(tmp_path):
    """Each deletes the row of one account; none of them may rely on the other."""
    site = place("database on PostgreSQL", tmp_path, None)
    accounts = (ACCOUNT, "111111111111")
    nodes = [site.open(), site.open()]

    async def story():
        for number in range(25):
            blob = await receive(nodes[0], f"m{number}", octets(1000), accounts)
            deleted = await asyncio.gather(
                *(
                    node.write(DeleteMessages(account))
                    for node, account in zip(nodes, accounts, strict=True)
                )
            )
            assert [entry.count for entry in deleted] == [1, 1]
            assert sorted(entry.blobs for entry in deleted) == [(), (blob,)]
            await nodes[1].contents.remove([blob])
        assert await ledger(nodes[0]) == []

    asyncio.run(story())
    for node in nodes:
        node.close()


# --- pieces and blocks -------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 20))
def test_blocks_have_the_same_octets_and_the_same_size(given_pieces, size):
    blocks = list(in_blocks(given_pieces, size))
    assert b"".join(blocks) == b"".join(given_pieces)
    assert all(len(block) == size for block in blocks[:-1])
    assert all(0 < len(block) <= size for block in blocks[-1:])


@given(
    st.binary(max_size=60),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=12),
)
def test_a_file_of_blocks_is_as_one_of_the_same_octets(body, size, moves):
    whole = io.BytesIO(body)

    def read_block(offset):
        start = offset // size * size
        return start, body[start : start + size]

    with io.BufferedReader(BlockFile(len(body), read_block), 16) as file:
        for offset, count in moves:
            assert file.seek(offset) == whole.seek(offset)
            assert file.read(count) == whole.read(count)
        assert file.seek(0, io.SEEK_END) == len(body)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(-2, 2), st.integers(0, 2), st.integers(1, 2 * CHUNK_OCTETS))
def test_chunk_boundaries(store, beside, chunks, piece):
    """Sizes beside multiples of a chunk, written in pieces of any size."""
    body = octets(max(0, chunks * CHUNK_OCTETS + beside))

    async def story():
        name = f"m{time.monotonic_ns()}"
        blob = await store.contents.keep(name, pieces(body, piece))
        assert await read(store, blob, len(body)) == body
        await store.contents.discard(blob)

    asyncio.run(story())
