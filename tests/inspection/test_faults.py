"""Faults by HTTP: `/_sendback/faults`, and Mailpit's `/api/v1/chaos`."""

import smtplib

import pytest

from sendback.service.events.model import EventKind
from sendback.testing import Sendback
from tests.inspection.api import Api, segment
from tests.partners.clients import MAIL

FAULTS = "/_sendback/faults"
CHAOS = "/api/v1/chaos"
OFF = {"ErrorCode": 451, "Probability": 0}


def rcpt_codes(server, count: int) -> list[int]:
    """The codes of the replies to so many RCPT commands of one client."""
    with smtplib.SMTP(*server.smtp) as client:
        client.ehlo()
        client.mail("ann@sender.example")
        return [client.rcpt("bob@example.com")[0] for _ in range(count)]


def test_an_added_fault_is_in_force_and_counts(server, api):
    given = {"at": "rcpt", "reply": "451 4.7.1 Later", "first": 2}
    answer = api.call("POST", FAULTS, given)
    assert answer.status == 201
    added = answer.json
    assert added.pop("created_at")
    assert added == {**given, "name": "fault-1", "matched": 0, "injected": 0}
    assert rcpt_codes(server, 3) == [451, 451, 250]
    (listed,) = api.get(FAULTS)["faults"]
    assert (listed["name"], listed["matched"], listed["injected"]) == ("fault-1", 3, 2)


def test_every_member_is_returned_as_it_was_given(api):
    given = [
        {"at": "end", "name": "a", "client": "192.0.2.0/24", "sender": "<>", "delay": 1.5,
         "recipient": "*@example.com", "probability": 0.5, "seed": -7, "drop": True},
        {"at": "api", "name": "b", "operation": "SendBounce", "lost": True, "from": 3},
        {"at": "api", "name": "c", "error": "Throttling", "text": "Slowly", "every": 2},
        {"at": "action", "name": "d", "action": "S3", "failure": "permanent", "only": 1},
    ]  # fmt: skip
    for fault in given:
        assert api.call("POST", FAULTS, fault).status == 201
    listed = api.get(FAULTS)["faults"]
    counters = ("matched", "injected", "created_at")
    assert [{k: v for k, v in fault.items() if k not in counters} for fault in listed] == given


def test_faults_are_removed_by_name_and_all(server, api):
    for name in ("one", "two", "three"):
        api.call("POST", FAULTS, {"at": "mail", "drop": True, "name": name})
    assert api.call("DELETE", f"{FAULTS}/two").status == 204
    assert api.call("DELETE", f"{FAULTS}/two").error == "NotFound"
    assert [fault["name"] for fault in api.get(FAULTS)["faults"]] == ["one", "three"]
    assert api.call("DELETE", FAULTS).json == {"deleted": 2}
    assert api.call("DELETE", FAULTS).json == {"deleted": 0}
    assert rcpt_codes(server, 1) == [250]


@pytest.mark.parametrize("name", ["../../etc/passwd", "%00", "'; drop table faults", "💌"])
def test_a_name_is_only_compared(api, name):
    assert api.request("DELETE", f"{FAULTS}/{segment(name)}").status == 404


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "at is missing"),
        ({"at": "helo", "drop": True}, "'helo' is no point"),
        ({"at": {"a": [{}]}, "drop": True}, "a dict is no point"),
        ({"at": "rcpt"}, "no effect"),
        ({"at": "rcpt", "drop": True, "operation": "SendBounce"}, "can never apply"),
        ({"at": "rcpt", "reply": "250 Fine"}, "400 to 599"),
        ({"at": "rcpt", "reply": "451 4.7.1 a\r\n250 b"}, "printable ASCII"),
        ({"at": "rcpt", "drop": True, "reciepient": "a@b.example"}, "reciepient is none of"),
        ({"at": "rcpt", "drop": True, "x" * 100_000: 1}, "x…"),
        ({"at": "rcpt", "drop": 1}, "drop must be true or false"),
        ({"at": "rcpt", "drop": True, "first": 0}, "counted from 1"),
        ({"at": "rcpt", "drop": True, "first": True}, "whole number"),
        ({"at": "rcpt", "delay": 10**400}, "delay must be a number"),
        ({"at": "rcpt", "delay": float("nan")}, "0 to 600"),
        ({"at": "rcpt", "drop": True, "probability": -(10**400)}, "must be a number"),
        ({"at": "rcpt", "drop": True, "name": "\ud800"}, "name:"),
        ({"at": "rcpt", "drop": True, "sender": "\ud800@b.example"}, "can never match"),
    ],
)
def test_a_fault_that_cannot_be_used_is_refused(api, body, text):
    answer = api.call("POST", FAULTS, body)
    assert (answer.status, answer.error) == (400, "InvalidParameter")
    message = answer.json["error"]["message"]
    assert text in message
    assert len(message) < 1000
    assert api.get(FAULTS)["faults"] == []


@pytest.mark.parametrize("method_path", [("POST", FAULTS), ("PUT", CHAOS)])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'{"at":' + b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(api, method_path, body):
    answer = api.call(*method_path, body)
    assert (answer.status, answer.error) == (400, "InvalidBody")
    answer = api.call(*method_path, b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.error) == (415, "UnsupportedMediaType")


def test_names_are_unique_and_faults_limited(api):
    given = {"at": "mail", "drop": True}
    assert api.call("POST", FAULTS, {**given, "name": "one"}).status == 201
    answer = api.call("POST", FAULTS, {**given, "name": "one"})
    assert (answer.status, answer.error) == (409, "AlreadyExists")
    for _ in range(99):
        assert api.call("POST", FAULTS, given).status == 201
    answer = api.call("POST", FAULTS, given)
    assert (answer.status, answer.error) == (409, "LimitReached")
    answer = api.call("PUT", CHAOS, {"Sender": {"Probability": 5}})
    assert (answer.status, answer.error) == (409, "LimitReached")


def test_changes_of_faults_are_events(server, api):
    with server.app.events.subscribe([EventKind.SETTING]) as subscription:
        api.call("POST", FAULTS, {"at": "mail", "drop": True, "name": "one"})
        api.call("DELETE", f"{FAULTS}/one")
        api.call("PUT", CHAOS, {"Sender": {"Probability": 5}})
        api.call("DELETE", FAULTS)
        changes = [event.fields["change"] for event in subscription.take().events]
    assert changes == [
        "fault one is added",
        "fault one is removed",
        "chaos triggers are set",
        "1 fault is removed",
    ]


# --- injected mail ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "end"])
def test_faults_of_smtp_are_for_injected_mail_too(api, at):
    api.call("POST", FAULTS, {"at": at, "reply": "451 4.7.1 Later", "first": 1})
    answer = api.inject()
    assert (answer.status, answer.json["reply"]) == (422, "451 4.7.1 Later")
    assert api.get("/_sendback/messages")["messages"] == []
    message_id = api.receive()
    assert [row["message_id"] for row in api.get("/_sendback/messages")["messages"]] == [message_id]
    (fault,) = api.get(FAULTS)["faults"]
    assert (fault["matched"], fault["injected"]) == (2, 1)


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "end"])
@pytest.mark.parametrize(
    ("effect", "reply"),
    [
        ({"drop": True}, "421 4.4.2 A fault dropped the connection"),
        ({"reply": "421 4.3.2 Going down"}, "421 4.3.2 Going down"),
    ],
)
def test_a_session_that_a_fault_ends_injects_nothing(api, at, effect, reply):
    api.call("POST", FAULTS, {"at": at, **effect, "first": 1})
    answer = api.inject(to=["bob@example.com", "carol@example.com"])
    assert (answer.status, answer.json["reply"]) == (422, reply)
    assert api.get("/_sendback/messages")["messages"] == []


def test_a_fault_of_one_recipient_is_among_the_replies(api):
    api.call("POST", FAULTS, {"at": "rcpt", "recipient": "bob@example.com", "reply": "452 Full"})
    answer = api.inject(to=["bob@example.com", "carol@example.com"])
    assert answer.status == 201
    codes = {name: reply["code"] for name, reply in answer.json["recipients"].items()}
    assert codes == {"bob@example.com": 452, "carol@example.com": 250}
    shown = api.get(f"/_sendback/messages/{answer.json['message_id']}")
    assert shown["to"] == ["carol@example.com"]


def test_the_selectors_of_a_fault_are_those_of_the_injected_mail(api):
    fault = {"at": "end", "sender": "<>", "recipient": "bob@example.com", "client": "192.0.2.7"}
    api.call("POST", FAULTS, {**fault, "reply": "554 5.7.1 No"})
    assert api.inject(**{"from": None}).status == 201
    assert api.inject(client_ip="192.0.2.7").status == 201
    assert (
        api.inject(**{"from": None, "client_ip": "192.0.2.7", "to": "c@example.com"}).status == 201
    )
    assert api.inject(**{"from": None, "client_ip": "192.0.2.7"}).json["code"] == 554


def test_a_delay_comes_before_the_usual_reply(api):
    api.call("POST", FAULTS, {"at": "data", "delay": 0.01})
    assert api.inject().status == 201
    assert api.get(FAULTS)["faults"][0]["injected"] == 1


# --- Mailpit ----------------------------------------------------------------------------------


def test_chaos_is_off_at_first(api):
    assert api.get(CHAOS) == {"Sender": OFF, "Recipient": OFF, "Authentication": OFF}


def test_a_trigger_of_mailpit_makes_commands_fail(server, api):
    trigger = {"ErrorCode": 452, "Probability": 100}
    answer = api.call("PUT", CHAOS, {"Recipient": trigger})
    assert answer.status == 200
    assert answer.json == {"Sender": OFF, "Recipient": trigger, "Authentication": OFF}
    assert api.get(CHAOS) == answer.json
    assert rcpt_codes(server, 2) == [452, 452]
    assert [fault["name"] for fault in api.get(FAULTS)["faults"]] == ["chaos-recipient"]
    api.call("PUT", CHAOS, {"Sender": {"ErrorCode": 550, "Probability": 100}})
    with smtplib.SMTP(*server.smtp) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("ann@sender.example", "bob@example.com", MAIL)
    assert refused.value.smtp_code == 550
    api.call("PUT", CHAOS, {})
    assert rcpt_codes(server, 1) == [250]
    assert api.get(FAULTS)["faults"] == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"sender": OFF}, "sender is none of"),
        ({"Sender": 5}, "Sender must have"),
        ({"Sender": {"Code": 451}}, "Sender must have"),
        ({"Sender": {"ErrorCode": 250, "Probability": 1}}, "400 to 599"),
        ({"Sender": {"ErrorCode": "451", "Probability": 1}}, "400 to 599"),
        ({"Sender": {"Probability": 101}}, "0 to 100"),
        ({"Sender": {"Probability": 0.5}}, "0 to 100"),
        ({"Authentication": {"ErrorCode": 535, "Probability": 5}}, "no AUTH"),
    ],
)
def test_a_trigger_that_cannot_be_used_is_refused(api, body, text):
    answer = api.call("PUT", CHAOS, body)
    assert (answer.status, answer.error) == (400, "InvalidParameter")
    assert text in answer.json["error"]["message"]


# --- access -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [FAULTS, CHAOS])
def test_pages_of_other_sites_are_refused(api, path):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = api.request("GET", path, headers=headers)
        assert answer.status == 403


@pytest.mark.parametrize("path", [FAULTS, CHAOS])
def test_with_a_token_each_request_needs_it(path):
    with Sendback(inspection_token="s3cret-token-of-the-tests") as server:
        api = Api(server.endpoint_url)
        assert api.request("GET", path).status == 401
        headers = {"Authorization": "Bearer s3cret-token-of-the-tests"}
        assert api.request("GET", path, headers=headers).status == 200


@pytest.mark.parametrize("path", [FAULTS, CHAOS])
def test_other_methods_are_refused(api, path):
    answer = api.request("PATCH", path)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


def test_while_outbound_is_mx_faults_are_refused():
    token = "of-sixteen-characters"
    with Sendback(outbound="mx", dns="system", inspection_token=token) as server:
        api = Api(server.endpoint_url)
        headers = {"Authorization": f"Bearer {token}"}
        answer = api.request("POST", FAULTS, {"at": "mail", "drop": True}, headers=headers)
        assert (answer.status, answer.error) == (400, "InvalidParameter")
        assert "outbound is mx" in answer.json["error"]["message"]
