import pytest

from sendback.dsn import REASONS, status_text


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("5.1.1", "Bad destination mailbox address"),
        ("4.2.2 (over quota)", "Mailbox full"),
        ("5.7.30", "REQUIRETLS support required"),
        ("5.99.99", ""),
        ("550", ""),
        ("", ""),
    ],
)
def test_the_registrys_words(status, text):
    assert status_text(status) == text


def test_every_reason_has_a_registered_status():
    assert all(status_text(reason.status) for reason in REASONS.values())
