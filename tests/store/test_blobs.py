import io

import pytest

from sendback.service.receiving.spool import INLINE_OCTETS, MemoryBudget, Spool
from sendback.store.engine.blobs import Blobs


def test_blobs_are_written_read_and_removed(tmp_path):
    blobs = Blobs(tmp_path)
    blobs.keep("a", io.BytesIO(b"hello"))
    assert blobs.read("a") == b"hello"
    assert list(blobs.older_than(2**40)) == ["a"]
    assert list(blobs.older_than(0)) == []
    blobs.remove(["a", "never-there"])
    with pytest.raises(FileNotFoundError):
        blobs.read("a")


def test_a_failed_write_leaves_no_file(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("no space left on device")

    blobs = Blobs(tmp_path)
    with pytest.raises(OSError, match="no space"):
        blobs.keep("a", Broken(b"x"))
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, INLINE_OCTETS, INLINE_OCTETS + 1, 3 * INLINE_OCTETS])
def test_a_spool_returns_what_was_written(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    spool = Spool(tmp_path, MemoryBudget(2**20))
    for start in range(0, size, 10_000):
        spool.write(content[start : start + 10_000])
    assert spool.size == size
    assert spool.first(size) == content
    assert spool.first(100) == content[:100]
    if size > INLINE_OCTETS:
        assert spool.rest(7).read() == content[7:]
    spool.close()
