"""A private Sendback server for tests: real SMTP, real receipt rules, real bounces, no network.

    >>> from sendback.testing import Sendback
    >>> with Sendback() as server:
    ...     server.verify("example.com")
    ...     received = server.receive(recipients=["bob@example.com"], subject="Hello")
    ...     _ = server.ses.send_bounce(
    ...         OriginalMessageId=received,
    ...         BounceSender="mailer-daemon@example.com",
    ...         BouncedRecipientInfoList=[
    ...             {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
    ...         ],
    ...     )
    ...     bounce = server.bounces.wait_for(original=received)
    ...     bounce.dsn.statuses
    ('5.1.1',)

`docs/testing.md` has the guide; the fixtures of pytest are in `sendback.pytest_plugin`. What is
listed here is covered by the compatibility promise (docs/releasing.md).
"""

from sendback.config.settings import SettingError
from sendback.faults.rules import FaultError
from sendback.service.rules.setup_file import SetupError
from sendback.testing.collection import NotArrivedError, UnexpectedError
from sendback.testing.inbox import Inbox
from sendback.testing.mail import MailRefusedError
from sendback.testing.outgoing import Bounce, Bounces, Sent, SentMail
from sendback.testing.received import ReceivedMail, ReceivedMails
from sendback.testing.recorders import Bucket, Call, Function, Notification, StoredObject, Topic
from sendback.testing.server import Clock, Sendback
from sendback.testing.thread import ServerError

__all__ = [
    "Bounce",
    "Bounces",
    "Bucket",
    "Call",
    "Clock",
    "FaultError",
    "Function",
    "Inbox",
    "MailRefusedError",
    "NotArrivedError",
    "Notification",
    "ReceivedMail",
    "ReceivedMails",
    "Sendback",
    "Sent",
    "SentMail",
    "ServerError",
    "SettingError",
    "SetupError",
    "StoredObject",
    "Topic",
    "UnexpectedError",
]
