import pytest

from sendback.service.receiving.spool import INLINE_OCTETS, MemoryBudget, Spool


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
