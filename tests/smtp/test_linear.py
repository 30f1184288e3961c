"""The work is linear in the octets received, whatever they are and however they are cut."""

import sys

import pytest

from sendback.smtp.content import ContentReader
from sendback.smtp.events import NoEvent
from sendback.smtp.input_buffer import InputBuffer
from sendback.smtp.session import SessionLimits
from tests.smtp.counting import CountedOctets
from tests.smtp.sessions import Session

SIZE = 256 * 1024
CHUNKS = [1, 2, 7, 1460, 32 * 1024, SIZE]
CONTENTS = {
    "dots": b".",
    "line ends": b"\r\n",
    "lines of a dot": b"..\r\n",
    "stuffed lines": b"..x\r\n",
    "beginnings of the end": b"\r\n.\r",
    "dots behind line ends": b"\r\n..",
    "bare CR": b"\r",
    "bare LF": b"\n",
    "CR LF CR": b"\r\n\r",
    "8-bit": b"\xff\x80",
    "NUL": b"\x00",
    "one long line": b"y",
    "ordinary lines": b"An ordinary line of text, as there are many.\r\n",
}
COMMANDS = {
    "NOOP": b"NOOP\r\n",
    "NOOP without its CR": b"NOOP\n",
    "empty lines": b"\r\n",
    "line feeds": b"\n",
    "carriage returns": b"\r",
    "one line without end": b"x",
    "lines of the longest": b"NOOP " + b"x" * 1041 + b"\r\n",
    "lines one longer": b"NOOP " + b"x" * 1042 + b"\r\n",
    "8-bit": b"\xff\xff\r\n",
    "blanks": b" ",
    "recipients": b"RCPT TO:<bob@example.com>\r\n",
    "small messages": b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n",
    "dot-stuffed messages": b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n..\r\n.\r\n",
}


def size_for(chunk):
    """What is cut into many pieces is shorter: each piece is counted."""
    return SIZE if chunk > 100 else SIZE // 16


def halves(chunk):
    return size_for(chunk) // 2, size_for(chunk)


def touched_by_content(unit, size, chunk):
    reader = ContentReader()
    CountedOctets.reset()
    wire = (unit * (size // len(unit) + 1))[:size]
    for start in range(0, size, chunk):
        reader.feed(CountedOctets(wire[start : start + chunk]))
    return CountedOctets.touched


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("unit", CONTENTS.values(), ids=CONTENTS.keys())
def test_octets_of_content_are_touched_a_fixed_number_of_times(unit, chunk):
    half, whole = (touched_by_content(unit, size, chunk) for size in halves(chunk))
    assert whole < 2.1 * half + 1000
    assert whole < 50 * size_for(chunk)


def touched_by_lines(unit, size, chunk):
    """Reads lines, and the content behind each DATA, as the machine does."""
    octets = InputBuffer(1046)
    CountedOctets.reset()
    wire = (unit * (size // len(unit) + 1))[:size]
    reader = None
    for start in range(0, size, chunk):
        octets.append(CountedOctets(wire[start : start + chunk]))
        while octets.octets:
            if reader is not None:
                piece = octets.take_content(reader)
                reader = reader if piece.end is None else None
            elif octets.take_line() == b"DATA\r\n":
                reader = ContentReader()
    return CountedOctets.touched


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("unit", COMMANDS.values(), ids=COMMANDS.keys())
def test_octets_of_commands_are_touched_a_fixed_number_of_times(unit, chunk):
    half, whole = (touched_by_lines(unit, size, chunk) for size in halves(chunk))
    assert whole < 2.1 * half + 1000
    assert whole < 20 * size_for(chunk)


def calls_of(work):
    """Return the number of calls of Python and C functions."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


UNLIMITED = SessionLimits(recipients=10**6, errors=10**6, overhead_commands=10**6)


@pytest.mark.parametrize("unit", COMMANDS.values(), ids=COMMANDS.keys())
def test_calls_of_the_machine_grow_with_what_is_sent(unit):
    def calls(size):
        session = Session(limits=UNLIMITED).hello()
        session.send(b"MAIL FROM:<>\r\n" if unit.startswith(b"RCPT") else b"NOOP\r\n")
        return calls_of(lambda: session.send((unit * (size // len(unit) + 1))[:size]))

    assert calls(32 * 1024) < 2.2 * calls(16 * 1024) + 200


def test_each_recipient_costs_the_same_as_the_first():
    def calls(first, count):
        session = Session(limits=UNLIMITED).hello()
        wire = [b"RCPT TO:<u%d@example.com>\r\n" % number for number in range(first + count)]
        session.send(b"MAIL FROM:<>\r\n", *wire[:first])
        return calls_of(lambda: session.send(*wire[first:]))

    assert calls(2000, 100) < 1.2 * calls(0, 100) + 100


def test_octets_that_wait_for_a_decision_are_not_copied_with_each_packet():
    """A client that pipelines in packets of one octet behind a recipient that is looked up."""
    machine = Session(limits=UNLIMITED).hello().machine
    machine.receive(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\n")
    while not isinstance(machine.next_event(), NoEvent):
        pass
    CountedOctets.reset()
    for _ in range(20_000):
        machine.receive(CountedOctets(b"x"))
    assert machine.buffered == 20_000
    assert CountedOctets.touched < 20_000
