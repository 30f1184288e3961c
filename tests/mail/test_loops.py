import pytest

from sendback.mail.loops import reason_for_silence


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", None),
        (b"Auto-Submitted: no\r\n", None),
        (b"Auto-Submitted: No (by hand)\r\n", None),
        (b"Auto-Submitted: auto-generated; x=y\r\n", "automatic"),
        (b"auto-submitted:\r\n auto-replied\r\n", "automatic"),
        (b"Content-Type: text/plain\r\n", None),
        (b"Content-Type: Multipart/Report; report-type=delivery-status\r\n", "report"),
        (b"Received: x\r\n" * 100, None),
        (b"Received: x\r\n" * 101, "101 servers"),
    ],
)
def test_what_is_not_answered_by_itself(header, words):
    reason = reason_for_silence(header)
    assert (reason is None) if words is None else (words in reason)
