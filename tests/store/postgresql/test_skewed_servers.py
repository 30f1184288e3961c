"""Two whole servers on one PostgreSQL, on machines whose clocks are four minutes apart."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from sendback.clock import SystemClock
from tests.partners.server import Server
from tests.partners.waiting import wait_for

MINUTES = timedelta(minutes=2)


@pytest.fixture
def nodes(url, tmp_path):
    """A node that is two minutes slow, and one that is two minutes fast."""
    found = []
    for number, wrong_by in enumerate((-MINUTES, MINUTES)):
        clock = SystemClock(machine=lambda by=wrong_by: datetime.now(UTC) + by)
        settings = {"send_bounce_rate": "1", "bounce_window": "1m", "secret": "ab" * 32}
        server = Server(
            clock=clock, data_dir=tmp_path / str(number), database=url, dns="off", **settings
        )
        found.append(server.start())
    found[0].ses.verify_domain_identity(Domain="example.com")
    yield found
    for server in found:
        server.stop()


def bounce(server, message_id):
    return server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )["MessageId"]


@pytest.mark.parametrize("receiver", [0, 1])
def test_mail_that_one_node_receives_is_bounced_by_the_other_within_the_window(nodes, receiver):
    """The window of a minute would be over, or the mail from the future, by a node's own clock."""
    message_id = nodes[receiver].send_mail(recipients=("bob@example.com",))
    sent = bounce(nodes[1 - receiver], message_id)
    query = f"SELECT state, attempts FROM outbox WHERE message_id = '{sent}'"
    wait_for(lambda: nodes[0].query(query) == [("captured", 1)])


def test_the_rate_limit_is_one_second_whichever_node_is_called(nodes):
    message_id = nodes[0].send_mail(recipients=("bob@example.com",))
    for server in (nodes[1], nodes[0], nodes[1]):
        bounce(server, message_id)
        for other in nodes:
            with pytest.raises(ClientError, match="Rate exceeded"):
                bounce(other, message_id)
        time.sleep(1.1)
