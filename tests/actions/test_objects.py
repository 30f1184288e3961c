"""Objects in a directory: keys are the user's and lead nowhere else."""

import asyncio
import os

import pytest

from sendback.actions.aws import AwsClients
from sendback.actions.objects import ObjectStores
from sendback.service.rules.content import Content, ContentGoneError
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError
from tests.partners.contents import in_file

STORES = ObjectStores(AwsClients("us-east-1"))


def content_of(body):
    return Content(b"A: b\r\n", body, len(body))


def put(target, key, content=content_of(b"\r\nmail")):  # noqa: B008 - frozen
    return asyncio.run(STORES.put(target, "bucket", key, content))


def test_an_object_is_a_file(tmp_path):
    place = put(f"directory:{tmp_path}/mail", "in/2026/id")
    assert place == f"{tmp_path}/mail/in/2026/id"
    assert (tmp_path / "mail/in/2026/id").read_bytes() == b"A: b\r\n\r\nmail"
    put(f"directory:{tmp_path}/mail", "in/2026/id", content_of(b"\r\nagain"))
    assert (tmp_path / "mail/in/2026/id").read_bytes() == b"A: b\r\n\r\nagain"
    assert [path.name for path in (tmp_path / "mail/in/2026").iterdir()] == ["id"]


@pytest.mark.parametrize("key", ["../id", "a/../../id", "/id", "a//id", "./id", "", "x" * 201])
def test_keys_that_are_no_path(tmp_path, key):
    with pytest.raises(ActionFailedError) as raised:
        put(f"directory:{tmp_path}/mail", key)
    assert raised.value.final
    assert not list(tmp_path.iterdir())


def test_a_directory_that_refuses(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ActionFailedError) as raised:
        put(f"directory:{tmp_path}/file", "id")
    assert not raised.value.final
    with pytest.raises(ActionFailedError):
        asyncio.run(STORES.check(f"directory:{tmp_path}/file", "bucket"))
    asyncio.run(STORES.check(f"directory:{tmp_path}/not/yet/there", "bucket"))


def test_what_is_no_place():
    with pytest.raises(UnknownTargetError):
        put("https://example.com", "id")


def test_a_body_in_a_file_is_copied(tmp_path):
    body = os.urandom(3_000_000)
    (tmp_path / "body").write_bytes(body)
    put(f"directory:{tmp_path}/mail", "id", in_file(b"A: b\r\n", tmp_path / "body", len(body)))
    assert (tmp_path / "mail/id").read_bytes() == b"A: b\r\n" + body


def test_content_that_is_gone_leaves_nothing(tmp_path):
    with pytest.raises(ContentGoneError, match="body is not there any more"):
        put(f"directory:{tmp_path}/mail", "id", in_file(b"A: b\r\n", tmp_path / "body", 10))
    (tmp_path / "body").write_bytes(b"short")
    with pytest.raises(ContentGoneError, match="body is not complete"):
        put(f"directory:{tmp_path}/mail", "id", in_file(b"A: b\r\n", tmp_path / "body", 10))
    assert list((tmp_path / "mail").iterdir()) == []


def test_two_accounts_may_store_under_one_key_at_once(tmp_path):
    """Messages have the same ID in each account that they are for."""
    contents = [content_of(bytes([letter]) * 2_000_000) for letter in b"abcd"]

    async def story():
        await asyncio.gather(
            *(STORES.put(f"directory:{tmp_path}/mail", "bucket", "id", each) for each in contents)
        )

    asyncio.run(story())
    assert [path.name for path in (tmp_path / "mail").iterdir()] == ["id"]
    assert (tmp_path / "mail/id").read_bytes() in {each.read() for each in contents}
