"""Where WorkMail and Connect actions hand mail over: an SMTP server, `smtp://HOST:PORT`.

The mail keeps its reverse-path and goes to the rule's recipients: it is passed on, not answered.
"""

from collections.abc import Sequence
from urllib.parse import SplitResult

import aiosmtplib

from sendback.redaction import shown_url, shown_wrong, split_url
from sendback.service.ports import ActionFailedError, UnknownTargetError

_SECONDS = 60.0
_PERMANENT = 500


class MailboxServers:
    """Implements `ports.Mailboxes`."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname

    async def deliver(
        self, target: str, sender: str, recipients: Sequence[str], content: bytes
    ) -> str:
        url = _server(target)
        shown = shown_url(target)
        try:
            _, answer = await aiosmtplib.send(
                content,
                sender=sender,
                recipients=list(recipients),
                hostname=url.hostname,
                port=url.port or 25,
                local_hostname=self._hostname,
                timeout=_SECONDS,
                mail_options=["BODY=8BITMIME"] if not content.isascii() else [],
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusals = error.recipients
            text = ", ".join(
                f"{entry.recipient}: {entry.code} {entry.message}" for entry in refusals
            )
            final = all(entry.code >= _PERMANENT for entry in refusals)
            raise ActionFailedError(f"{shown} answered {text}", final=final) from error
        except aiosmtplib.SMTPResponseException as error:
            text = f"{shown} answered {error.code} {error.message}"
            raise ActionFailedError(text, final=error.code >= _PERMANENT) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ActionFailedError(f"{shown}: {error}") from error
        return f"{shown} answered {answer}"


def _server(target: str) -> SplitResult:
    """Return the parts of the server's URL. Raises `UnknownTargetError`."""
    try:
        url = split_url(target)
        if url.scheme == "smtp" and url.hostname:
            return url
    except ValueError:
        pass
    shown = shown_wrong(target)
    raise UnknownTargetError(f"{shown} is no SMTP server: write smtp://HOST:PORT")
