"""Receives mail without a connection, through the SMTP machine that serves clients.

So a mail is decided, checked and stored exactly as one that a client sends, and fails by the same
faults: the commands of a session are given to a machine of its own, and the replies are read from
it. Where a fault drops the connection, a reply says so.
"""

import asyncio
import re
from typing import Protocol

from sendback.faults.model import Point
from sendback.mail.address import Address
from sendback.service.receiving.injection import InjectedMail, InjectionReply, InjectionResult
from sendback.smtp import events
from sendback.smtp.client_address import client_address
from sendback.smtp.decisions import Decisions, Receivers
from sendback.smtp.events import NoEvent
from sendback.smtp.faults import COMMAND_POINTS, Drop, SmtpFaults
from sendback.smtp.machine import RefusedCommand, SmtpMachine
from sendback.smtp.replies import Reply, make_reply
from sendback.smtp.storing import IncomingContent, MessageStorage

# Octets given to the machine before other clients are served.
_CHUNK = 64 * 1024
_DROPPED = make_reply(421, "4.4.2", "A fault dropped the connection")
_REPLY = re.compile(r"(\d{3}) (?:(\d\.\d{1,3}\.\d{1,3}) )?(.*)", re.DOTALL)


class InjectionHost(Protocol):
    """What is used of the SMTP server."""

    decisions: Decisions
    faults: SmtpFaults
    storage: MessageStorage

    def new_machine(self, client_ip: str) -> SmtpMachine[Receivers]: ...

    def report_refusal(self, client_ip: str, refusal: RefusedCommand) -> None: ...


class SmtpInjector:
    """Receives mail for the control API."""

    def __init__(self, host: InjectionHost) -> None:
        self._host = host

    async def inject(self, mail: InjectedMail) -> InjectionResult:
        """Receive a mail as from a client; the texts in it must have no line ends."""
        client_ip = client_address(mail.client_ip)
        host = self._host
        refusal = await host.faults.decide_client(host.decisions, client_ip)
        if refusal is Drop.CONNECTION:
            return InjectionResult(_read(_DROPPED.wire)[0])
        if refusal is not None:
            host.report_refusal(client_ip, RefusedCommand("", refusal, None, ()))
            return InjectionResult(_read(refusal.wire)[0])
        session = _Session(self._host, client_ip)
        try:
            return await session.run(mail)
        finally:
            session.close()


class _Session:
    """One session, of one mail."""

    def __init__(self, host: InjectionHost, client_ip: str) -> None:
        self._host = host
        self._client_ip = client_ip
        self._machine = host.new_machine(client_ip)
        self._machine.take_output()  # the greeting
        self._content: IncomingContent | None = None
        self._message_id: str | None = None
        self._is_ended = False
        self._last: InjectionReply | None = None  # that ended the session

    async def run(self, mail: InjectedMail) -> InjectionResult:
        parameters = "".join(f" {parameter}" for parameter in mail.parameters)
        for line in (f"EHLO {mail.helo}", f"MAIL FROM:<{mail.sender}>{parameters}"):
            reply = await self._command(line)
            if reply.is_refusal:
                return InjectionResult(reply)
        replies: dict[str, InjectionReply] = {}
        for recipient in mail.recipients:
            replies[recipient] = await self._command(f"RCPT TO:<{recipient}>")
            if self._last is not None:
                return InjectionResult(self._last, replies)
        if all(reply.is_refusal for reply in replies.values()):
            return InjectionResult(next(iter(replies.values())), replies)
        reply = await self._command("DATA")
        if not reply.is_refusal:
            reply = await self._send(mail.content)
        return InjectionResult(reply, replies, self._message_id)

    def close(self) -> None:
        if self._content is not None:
            self._content.close()

    async def _command(self, line: str) -> InjectionReply:
        self._machine.receive(f"{line}\r\n".encode())
        await self._work()
        return self._reply()

    async def _send(self, content: bytes) -> InjectionReply:
        octets = _dot_stuffed(content)
        for start in range(0, len(octets), _CHUNK):
            self._machine.receive(octets[start : start + _CHUNK])
            await self._work()
            await asyncio.sleep(0)
        return self._reply()

    def _reply(self) -> InjectionReply:
        machine = self._machine
        for refusal in machine.take_refusals():
            self._host.report_refusal(self._client_ip, refusal)
        replies = _read(machine.take_output())
        if self._is_ended:
            self._last = replies[-1]
        return replies[0]

    async def _work(self) -> None:
        self._machine.asks_about = self._host.faults.verbs
        while not isinstance(event := self._machine.next_event(), NoEvent):
            await self._handle(event)

    async def _handle(self, event: events.Event[Receivers]) -> None:  # noqa: C901 - one case an event
        match event:
            case events.CommandReceived():
                if not await self._has_failed(COMMAND_POINTS[event.verb]):
                    await self._handle(self._machine.proceed())
            case events.RecipientReceived():
                if not await self._has_failed(Point.RCPT, event.recipient.address):
                    await self._decide(event)
            case events.ContentStarted():
                self._content = self._host.storage.open()
            case events.ContentReceived():
                self._write(event.content)
            case events.MessageReceived():
                self._write(event.content)
                if not await self._has_failed(Point.END):
                    await self._store(event)
            case events.ContentRefused():
                self.close()
            case events.SessionEnded():
                self._is_ended = True

    async def _has_failed(self, point: Point, recipient: Address | None = None) -> bool:
        """Inject a fault, if there is one here; return whether nothing else is to be done."""
        faults = self._host.faults
        fault = await faults.decide(point, self._client_ip, self._machine, recipient)
        if fault is Drop.CONNECTION:
            self._machine.end(_DROPPED)
        elif fault is not None:
            self._machine.refuse(fault)
        return fault is not None

    async def _decide(self, event: events.RecipientReceived) -> None:
        machine = self._machine
        decision = await self._host.decisions.recipient(
            event.recipient.address, self._client_ip, encrypted=machine.is_encrypted
        )
        if isinstance(decision, Reply):
            machine.refuse(decision)
        else:
            machine.accept_recipient(decision)

    def _write(self, content: bytes) -> None:
        if self._content is not None:
            self._content.write(content)

    async def _store(self, event: events.MessageReceived[Receivers]) -> None:
        result = await self._host.storage.store(event, self._content)
        if isinstance(result, Reply):
            self._machine.refuse(result)
            return
        self._message_id = result
        self._machine.accept_message(result)


def _dot_stuffed(content: bytes) -> bytes:
    """Return the content as DATA sends it, with its end (RFC 5321 §4.5.2)."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n")


def _read(wire: bytes) -> list[InjectionReply]:
    """Return the replies in the machine's output; of one of several lines, the texts are joined."""
    lines = wire.decode("ascii", "replace").split("\r\n")[:-1]
    found, texts = [], []
    for line in lines:
        texts.append(line[4:])
        if line[3:4] != "-":
            found.append(_parse(" ".join([line[:3], *texts])))
            texts = []
    return found


def _parse(text: str) -> InjectionReply:
    match = _REPLY.fullmatch(text)
    if match is None:
        raise RuntimeError(f"not a reply: {text!r}")
    return InjectionReply(int(match[1]), match[2] or "", text)
