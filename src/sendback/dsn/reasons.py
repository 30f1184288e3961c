"""The reasons that SES has by name (SES API: BounceType), as reply, status and text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """An SMTP reply code, an enhanced status code (RFC 3463) and the text that goes with them."""

    smtp_reply: int
    status: str
    text: str

    @property
    def diagnostic_code(self) -> str:
        """`smtp; 550 5.1.1 Mailbox does not exist` (RFC 3464 §2.3.6)."""
        return f"smtp; {self.smtp_reply} {self.status} {self.text}"


REASONS: dict[str, Reason] = {
    "DoesNotExist": Reason(550, "5.1.1", "Mailbox does not exist"),
    "MessageTooLarge": Reason(552, "5.3.4", "Message too large"),
    "ExceededQuota": Reason(552, "5.2.2", "Mailbox full"),
    "ContentRejected": Reason(550, "5.6.1", "Message content rejected"),
    "Undefined": Reason(554, "5.0.0", "Unknown failure"),
    "TemporaryFailure": Reason(450, "4.0.0", "Temporary failure"),
}
