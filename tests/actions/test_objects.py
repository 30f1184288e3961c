"""Objects in a directory: keys are the user's and lead nowhere else."""

import asyncio

import pytest

from sendback.actions.aws import AwsClients
from sendback.actions.objects import ObjectStores
from sendback.service.ports import ActionFailedError, UnknownTargetError

STORES = ObjectStores(AwsClients("us-east-1"))


def put(target, key, content=b"mail"):
    return asyncio.run(STORES.put(target, "bucket", key, content))


def test_an_object_is_a_file(tmp_path):
    place = put(f"directory:{tmp_path}/mail", "in/2026/id")
    assert place == f"{tmp_path}/mail/in/2026/id"
    assert (tmp_path / "mail/in/2026/id").read_bytes() == b"mail"
    put(f"directory:{tmp_path}/mail", "in/2026/id", b"again")
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
