"""Mail that nobody here wrote: all of CPython's and flufl.bounce's test data, received, bounced."""

import email
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from sendback.dsn import check, parse
from tests.conftest import need

_SPEC = find_spec("test.test_email")
_FETCHED = Path(__file__).parents[1] / "partners/fetched"
SOURCES = {
    "CPython's test.test_email": (
        [Path(_SPEC.origin).parent / "data"] if _SPEC and _SPEC.origin else []
    ),
    "flufl.bounce's test data": list(_FETCHED.glob("flufl_bounce-*/tests/data")),
}


@pytest.mark.parametrize("options", [(), ("RET=FULL", "BODY=8BITMIME")])
@pytest.mark.parametrize("source", SOURCES)
def test_each_is_received_and_bounced_and_the_bounce_is_clean(server, source, options):
    files = [
        file for folder in SOURCES[source] for file in sorted(folder.iterdir()) if file.is_file()
    ]
    need(source, available=bool(files))
    assert len(files) > 40
    whole = 0
    for file in files:
        content = re.sub(rb"\r\n|\r|\n", b"\r\n", file.read_bytes())
        dsn = _bounced(server, content, options, file.name)
        whole += dsn.returned_type == "message/rfc822"
    assert bool(whole) == bool(options)


def _bounced(server, content, options, name):
    answer = server.ses.send_bounce(
        OriginalMessageId=server.send_mail(content=content, mail_options=options),
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[
            {"Recipient": "bob@example.com", "BounceType": "ContentRejected"}
        ],
    )
    bounce = server.bounce(answer["MessageId"]).content
    assert [str(finding) for finding in check(bounce)] == [], name
    dsn = parse(bounce)
    assert [entry.final_recipient for entry in dsn.recipients] == ["bob@example.com"]
    assert not email.message_from_bytes(bounce).get_payload(1).defects
    return dsn
