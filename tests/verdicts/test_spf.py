"""SPF of hostile zones: the work is bounded whatever a domain publishes."""

from types import SimpleNamespace

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import Address
from sendback.mail.envelope import Client, ReversePath
from sendback.net.dns_answers import DnsFailedError
from sendback.receipt.verdicts import SPF_VERDICTS
from sendback.verdicts.look_ups import Budget, is_dns_name
from sendback.verdicts.spf import MAX_RECORD_OCTETS, MAX_TERM_OCTETS, MAX_TERMS, check_spf
from tests.partners.steps import steps
from tests.verdicts.mails import mail_to_check

# RFC 7208 §4.6.4: ten terms that ask, ten names of each MX or PTR, the domain itself, %{p}.
MAX_QUERIES = 10 * 11 + 1 + 11


class Zone:
    """Answers from `records`, by (name, kind) or by kind; a function is called with the name."""

    def __init__(self, records):
        self._records = {
            key: values if callable(values) else _parsed(key, values)
            for key, values in records.items()
        }
        self.asked = []

    def query(self, name, kind, seconds):
        self.asked.append((name, kind))
        assert len(name) <= 253
        found = self._records.get((name.lower(), kind), self._records.get(kind, ()))
        return _parsed(kind, found(name)) if callable(found) else found


def _parsed(key, values):
    return [_record(key if isinstance(key, str) else key[1], value) for value in values]


def _record(kind, value):
    if kind == "TXT":
        octets = value if isinstance(value, bytes) else value.encode()
        return SimpleNamespace(strings=[octets[n : n + 255] for n in range(0, len(octets), 255)])
    return dns.rdata.from_text("IN", kind, value)


def check(
    records, *, sender="ann@evil.example", ip="192.0.2.7", helo="mx.evil.example", seconds=1e6
):
    zone = records if isinstance(records, Zone) else Zone(records)
    notes = []
    local, _, domain = sender.rpartition("@")
    path = ReversePath(Address(local, domain) if sender else None)
    mail = mail_to_check(b"", Client(ip, helo), path)
    found = check_spf(mail, Budget(zone, seconds), notes.append)
    return found.result, zone.asked, notes


def spf(text, **more):
    return {("evil.example", "TXT"): [text], **more}


def chain(name):
    """A policy that includes the next one, for ever."""
    number = int(name.partition(".")[0].removeprefix("n") or 0) if name.startswith("n") else 0
    return [f"v=spf1 include:n{number + 1}.evil.example -all"]


def tree(name):
    return [f"v=spf1 include:a.{name[:200]} include:b.{name[:200]} -all"]


LONG = "x" * (MAX_TERM_OCTETS - 10)
ADDRESSES = [f"198.51.{n // 256}.{n % 256}" for n in range(4000)]

# What the sender's domain publishes, and the result (None: any).
SHAPES = {
    # --- one record ---
    "16 KB of one term": (spf("v=spf1 a:" + "a" * 16_000 + "!"), "permerror"),
    "64 KB of one term": (spf("v=spf1 a:" + "a" * 64_000 + "!"), "permerror"),
    "64 KB of blanks": (spf("v=spf1" + " " * 64_000 + "-all"), "permerror"),
    "64 KB of macros that do not end": (spf("v=spf1 exists:" + "%{" * 32_000), "permerror"),
    "64 KB of dots": (spf("v=spf1 a:" + "." * 64_000), "permerror"),
    "64 KB of colons": (spf("v=spf1 " + ":" * 64_000), "permerror"),
    "64 KB of slashes": (spf("v=spf1 a" + "/" * 64_000), "permerror"),
    "64 KB of hyphens": (spf("v=spf1 a:." + "a-" * 32_000), "permerror"),
    "64 KB of ip4": (spf("v=spf1" + " ip4:198.51.100.1" * 3800 + " -all"), "permerror"),
    "64 KB of modifiers": (spf("v=spf1 " + " ".join(f"x{n}=y" for n in range(8000))), "permerror"),
    "a long term of letters": (spf("v=spf1 a:." + "a" * (MAX_TERM_OCTETS - 4) + "!"), "permerror"),
    "many long terms of letters": (spf("v=spf1" + f" a:.{LONG}!" * 8), "permerror"),
    "many long exists of macros": (
        spf("v=spf1" + (" exists:" + "%{" * 240 + ".x") * 8),
        "permerror",
    ),
    "many long modifiers of dots": (
        spf("v=spf1" + "".join(f" x{n}=%" + "." * 480 for n in range(8))),
        "permerror",
    ),
    "many terms": (spf("v=spf1" + " ip4:198.51.100.1" * 220 + " -all"), "fail"),
    "too many terms": (spf("v=spf1" + " ?all" * (MAX_TERMS + 1)), "permerror"),
    "as long as allowed": (
        spf(("v=spf1 ip4:192.0.2.0/24 " + " ".join(["x=" + "y" * 500] * 8))[:MAX_RECORD_OCTETS]),
        "permerror",  # a modifier that occurs twice
    ),
    "many different modifiers": (
        spf("v=spf1 ip4:192.0.2.7 " + " ".join(f"x{n}=y" for n in range(240))),
        "pass",
    ),
    "a CIDR length of 500 digits": (spf("v=spf1 a/" + "1" * 500), "permerror"),
    "a CIDR length of 0": (spf("v=spf1 ip4:1.2.3.4/0 -all"), "pass"),
    "a macro with 500 digits": (spf("v=spf1 exists:%{l" + "9" * 400 + "}.x.example"), None),
    "a macro with delimiters": (spf("v=spf1 exists:%{lr" + "+-./_=," * 60 + "}.x.example"), None),
    "macros that grow": (spf("v=spf1" + (" exists:" + "%{l}." * 100 + "x.example") * 8), None),
    "macros without dots that grow": (spf("v=spf1 exists:" + "%{l}" * 125 + ".x.example"), None),
    "a macro of the receiver in a name": (spf("v=spf1 exists:%{r}.example -all"), "permerror"),
    "an unknown macro": (spf("v=spf1 exists:%{z}.example -all"), "permerror"),
    "an empty macro": (spf("v=spf1 exists:%{}.example -all"), "permerror"),
    "octets that are no ASCII": (spf(b"v=spf1 a:\xff\xfe.example -all"), "permerror"),
    "a NUL": (spf(b"v=spf1 a:\x00.example -all"), "fail"),
    "escape sequences": (spf("v=spf1 include:\x1b[31m.evil.example -all"), None),
    "line ends": (spf("v=spf1\r\n-all"), "none"),
    "addresses of IPv6": (spf("v=spf1 ip6:" + ":".join(["ffff"] * 100) + " -all"), "permerror"),
    # --- several records ---
    "two records": ({"TXT": ["v=spf1 -all", "v=spf1 +all"]}, "permerror"),
    "4,000 records": ({"TXT": ["v=spf1 -all"] * 4000}, "permerror"),
    "4,000 records of other kinds": ({"TXT": ["x"] * 4000}, "permerror"),
    "900 other records and one": ({"TXT": [*["x"] * 900, "v=spf1 -all"]}, "fail"),
    "other records of 64 KB": ({"TXT": ["x" * 65_000, "v=spf1 -all"]}, "fail"),
    # --- other names ---
    "include of itself": (spf("v=spf1 include:evil.example -all"), "permerror"),
    "include of itself by a macro": (spf("v=spf1 include:%{d} -all"), "permerror"),
    "includes without end": ({"TXT": chain}, "permerror"),
    "includes in a tree": ({"TXT": tree}, "permerror"),
    "redirect to itself": (spf("v=spf1 redirect=evil.example"), "permerror"),
    "redirect by a macro": (spf("v=spf1 redirect=%{d}"), "permerror"),
    "redirects without end": (
        {"TXT": lambda name: [f"v=spf1 redirect=a.{name[:180]}"]},
        "permerror",
    ),
    "exp of every include": (
        {"TXT": lambda name: [f"v=spf1 include:a.{name[:150]} exp=%{{d}}.%{{d}} -all"]},
        "permerror",
    ),
    "an explanation of 64 KB": (
        {
            ("evil.example", "TXT"): ["v=spf1 -all exp=long.evil.example"],
            ("long.evil.example", "TXT"): ["%" + "." * 64_000],
        },
        "fail",
    ),
    "names that do not exist": (
        spf("v=spf1 a:a.example a:b.example a:c.example a:d.example -all"),
        "permerror",
    ),
    "ten a with 4,000 addresses": (
        spf("v=spf1" + "".join(f" a:{n}.example" for n in range(10)) + " -all", A=ADDRESSES),
        "permerror",
    ),
    "an a with 900 addresses": (spf("v=spf1 a:x.example -all", A=ADDRESSES[:900]), "fail"),
    "2,000 MX": (
        spf("v=spf1 mx -all", MX=[f"{n} mx{n}.example." for n in range(2000)]),
        "permerror",
    ),
    "ten mx with ten names each": (
        spf(
            "v=spf1" + "".join(f" mx:{n}.example" for n in range(10)) + " -all",
            MX=[f"{n} mx{n}.example." for n in range(10)],
            A=ADDRESSES[:5],
        ),
        "fail",
    ),
    "MX of the root and of odd names": (
        spf("v=spf1 mx -all", MX=["0 .", r"1 a\.b\032c.example.", r"2 \000\255.example."]),
        None,
    ),
    "4,000 PTR": (
        spf("v=spf1 ptr -all", PTR=[f"p{n}.example." for n in range(4000)], A=["203.0.113.1"]),
        "permerror",
    ),
    "ten ptr": (
        spf(
            "v=spf1" + "".join(f" ptr:{n}.example" for n in range(10)) + " -all",
            PTR=[f"p{n}.example." for n in range(20)],
            A=["203.0.113.1"],
        ),
        "fail",
    ),
    "%{p} in every term": (
        spf(
            "v=spf1" + "".join(f" exists:%{{p}}.{n}.example" for n in range(9)) + " -all",
            PTR=[f"p{n}.evil.example." for n in range(20)],
            A=lambda name: ["192.0.2.7"] if name.count(".") == 2 else ["127.0.0.2"],
        ),
        "pass",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("sender", "ip"),
    [("ann@evil.example", "192.0.2.7"), ("a.b" * 85 + "@evil.example", "2001:db8::1")],
    ids=["v4", "v6"],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_hostile_zones(shape, sender, ip):
    records, expected = SHAPES[shape]
    zone, found = Zone(records), []
    taken = steps(lambda: found.append(check(zone, sender=sender, ip=ip)[0]))
    assert taken < 200_000
    assert len(zone.asked) <= MAX_QUERIES
    assert found[0] in SPF_VERDICTS
    if expected is not None and ip == "192.0.2.7":
        assert found == [expected]


def test_there_are_fifty_shapes():
    assert len(SHAPES) >= 50


@pytest.mark.parametrize(
    "domain",
    [
        "localhost",
        "a" * 64 + ".example",
        "a..example",
        ".example",
        "a." * 127 + "example",
        "[192.0.2.1]",
    ],
)
def test_a_domain_that_dns_cannot_have_has_no_policy(domain):
    """RFC 7208 §4.3; nothing is asked."""
    assert check({"TXT": ["v=spf1 -all"]}, sender="", helo=domain) == ("none", [], [])


def test_a_name_that_is_too_long_loses_labels_on_its_left():
    """RFC 7208 §7.3."""
    _, asked, _ = check(spf("v=spf1 exists:" + "abcdefghi." * 45 + "example -all", A=["127.0.0.2"]))
    (name,) = [name for name, kind in asked if kind == "A"]
    assert name == "abcdefghi." * 24 + "example"


def test_the_local_part_is_no_escape_sequence_for_dns():
    _, asked, _ = check(spf("v=spf1 exists:%{l}.example -all"), sender='"a\\.b"@evil.example')
    assert asked == [("evil.example", "TXT")]


def test_silence_is_a_temporary_error():
    def silent(name):
        raise DnsFailedError("no answer in time")

    result, _, (note,) = check({"TXT": silent})
    assert result == "temperror"
    assert "no answer in time" in note


def test_a_budget_that_is_used_up_is_a_temporary_error():
    assert check(spf("v=spf1 -all"), seconds=0)[0] == "temperror"


def test_a_client_whose_address_is_none():
    assert check(spf("v=spf1 -all"), ip="unknown")[0] == "permerror"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.example", True),
        ("_dmarc.a-b.example", True),
        ("ann+tag=x.example", True),
        ("a" * 63 + ".example", True),
        ("a" * 64 + ".example", False),
        ("a..example", False),
        ("", False),
        ("a.example.", False),
        ("é.example", False),
        ("a b.example", False),
        ("a\\046b.example", False),
        ("a\x1b.example", False),
        (".".join(["a" * 49] * 5) + ".abc", True),
        (".".join(["a" * 49] * 5) + ".abcd", False),
    ],
)
def test_names_that_dns_can_have(name, expected):
    assert is_dns_name(name) is expected


_TERMS = st.lists(
    st.sampled_from(
        ["a", "mx", "ptr", "all", "-all", "~all", "exists:", "include:", "ip4:", "ip6:", "exp=",
         "redirect=", "%{l}", "%{d2r}", "%%", "%_", "%", "/24", "//64", ".", "x.example", "::1",
         "192.0.2.7", ":", " ", "é", "\x00"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(_TERMS, _TERMS)
def test_any_record_has_a_result(first, second):
    records = {
        ("evil.example", "TXT"): [("v=spf1 " + first).encode()],
        "TXT": [("v=spf1 " + second).encode()],
        "A": ["192.0.2.7"],
        "MX": ["1 mx.example."],
        "PTR": ["p.example."],
    }
    result, asked, _ = check(records)
    assert result in SPF_VERDICTS
    assert len(asked) <= MAX_QUERIES
