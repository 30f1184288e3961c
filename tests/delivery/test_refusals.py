"""What a refusal means for the message, for its domain, and for when to come back."""

from datetime import timedelta

import pytest

from sendback.delivery.refusals import fault_of, greylist_wait
from sendback.delivery.transports import Fault
from sendback.smtp_client.conversation import Stage, StageReply
from sendback.smtp_client.replies import ServerReply


def answer(text, stage=Stage.RCPT):
    code, _, rest = text.partition(" ")
    return StageReply(stage, ServerReply(int(code), tuple(rest.split("|"))))


@pytest.mark.parametrize(
    ("text", "stage", "fault"),
    [
        ("250 2.0.0 Ok", Stage.CONTENT, Fault.MESSAGE),
        ("550 5.1.1 no such user", Stage.RCPT, Fault.MESSAGE),
        ("550 no such user", Stage.RCPT, Fault.MESSAGE),
        ("452 4.2.2 mailbox full", Stage.RCPT, Fault.MESSAGE),
        ("552 5.3.4 message too big", Stage.CONTENT, Fault.MESSAGE),
        ("554 5.6.0 broken content", Stage.CONTENT, Fault.MESSAGE),
        ("550 5.5.1 what", Stage.RCPT, Fault.MESSAGE),
        ("554 5.7.1 your address is on a list", Stage.RCPT, Fault.UNCLEAR),
        ("451 4.3.0 our database is away", Stage.RCPT, Fault.UNCLEAR),
        ("452 4.3.1 no space", Stage.CONTENT, Fault.UNCLEAR),
        ("451 4.4.1 no route", Stage.RCPT, Fault.UNCLEAR),
        ("550 go away", Stage.MAIL, Fault.UNCLEAR),
        ("501 5.1.7 no null sender here", Stage.MAIL, Fault.UNCLEAR),
        ("421 4.7.0 too many connections", Stage.RCPT, Fault.UNCLEAR),
        ("450 4.7.1 Greylisted, try again later", Stage.RCPT, Fault.MESSAGE),
    ],
)
def test_faults(text, stage, fault):
    assert fault_of(answer(text, stage)) is fault


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("450 4.2.0 <ann@a.example>: Recipient address rejected: Greylisted", 300),
        ("450 4.7.1 Greylisting in action, please try again in 300 seconds", 300),
        ("451 4.7.1 Greylisting in effect, please come back later", 300),
        ("450 4.2.0 graylisted: retry in 12 minutes", 720),
        ("451 4.7.1 Try again in 10 mins|http://example.com/greylist", 600),
        ("450 greylisted, wait 5s", 30),
        ("450 greylisted, wait 90000 seconds", 1800),
        ("450 4.7.1 You are temporarily deferred", 300),
        ("450 4.2.1 mailbox busy", None),
        ("451 4.3.0 database is away", None),
        ("550 5.7.1 Greylisted for ever", None),
    ],
)
def test_greylisting(text, seconds):
    found = greylist_wait(answer(text))
    assert found == (None if seconds is None else timedelta(seconds=seconds))


def test_one_that_says_so_for_ever_is_backed_off_like_others():
    assert greylist_wait(answer("450 greylisted"), attempts=5) is None


def test_only_while_the_recipient_is_judged():
    assert greylist_wait(answer("450 greylisted", Stage.MAIL)) is None


LONG = [
    "450 4.7.1 " + "temporarily unavailable " * 3000,
    "450 4.7.1 " + "temporarily unavailable " * 3000 + "try",
    "450 4.7.1 try again in " + "1 " * 30_000,
    "450 4.7.1 greylisted " + "1" + " " * 60_000 + "x",
    "450 " + "4" * 60_000,
    "450 " + "|".join(["temporarily unavailable"] * 3000),
]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_of_a_long_reply_the_beginning_is_looked_at(text):
    """What is quadratic in 64 KiB, twenty thousand times, does not end within the time limit."""
    for _ in range(20_000 // 10):
        greylist_wait(answer(text))
    assert fault_of(answer(text)) in Fault
