"""A DNS server on loopback that answers from a zone file, over UDP and TCP."""

import socketserver
import struct
import threading
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.partners.postfix import free_port


class DnsServer:
    """`zone` has a line a record: `name TTL IN type value`. It counts the questions.

    A name with the label `servfail` fails, `silent` gets no answer, `garbage` gets octets that are
    no message. Answers about the names in `secure` and what is below them say that DNSSEC proves
    them.
    """

    def __init__(self, zone: str, secure: tuple[str, ...] = ()) -> None:
        self._secure = tuple(f"{name}." for name in secure)
        self.records: dict[tuple[str, str], list[str]] = {}
        self._names: set[str] = set()
        self.questions: list[tuple[str, str]] = []
        for line in filter(None, map(str.strip, zone.splitlines())):
            name, _, _, kind, value = line.split(None, 4)
            self.records.setdefault((name.lower(), kind), []).append(value)
            self._names.add(name.lower())
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                answer = outer.answer(data, by_udp=True)
                if answer is not None:
                    sock.sendto(answer, self.client_address)

        class Tcp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                (length,) = struct.unpack("!H", self.request.recv(2))
                answer = outer.answer(self.request.recv(length))
                if answer is not None:
                    self.request.sendall(struct.pack("!H", len(answer)) + answer)

        self.port = free_port()
        self._udp = socketserver.ThreadingUDPServer(("127.0.0.1", self.port), Udp)
        self._tcp = socketserver.ThreadingTCPServer(("127.0.0.1", self.port), Tcp)

    def put(self, name: str, kind: str, *values: str) -> None:
        """From now on these are the records; none takes them away."""
        full = name.rstrip(".").lower() + "."
        self.records[full, kind] = list(values)
        if values:
            self._names.add(full)
        elif not any(key[0] == full and found for key, found in self.records.items()):
            self._names.discard(full)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, data: bytes, *, by_udp: bool = False) -> bytes | None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind))
        labels = name.split(".")
        if "silent" in labels:
            return None
        if "garbage" in labels:
            return data[:2] + b"\xff" * 40
        response: Any = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if "servfail" in labels:
            response.set_rcode(dns.rcode.SERVFAIL)
            return bytes(response.to_wire())
        response.answer = self._rrsets(name, kind)
        if any(name == own or name.endswith(f".{own}") for own in self._secure):
            response.flags |= dns.flags.AD
        if not response.answer and name not in self._names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        try:
            return bytes(response.to_wire(max_size=max(512, query.payload) if by_udp else 65535))
        except dns.exception.TooBig:
            response.answer = []
            response.flags |= dns.flags.TC  # to be asked for by TCP
            return bytes(response.to_wire())

    def _rrsets(self, name: str, kind: str) -> list[Any]:
        """What the name has, along its CNAMEs."""
        found: list[Any] = []
        for _ in range(8):
            values = self.records.get((name, kind))
            alias = self.records.get((name, "CNAME"))
            if values or not alias:
                if values:
                    found.append(dns.rrset.from_text_list(name, 300, "IN", kind, values))
                return found
            found.append(dns.rrset.from_text_list(name, 300, "IN", "CNAME", alias))
            name = alias[0].lower()
        return found

    def __enter__(self) -> Self:
        for server in (self._udp, self._tcp):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()
