"""The inspection and control API, as an HTTP client without any library of ours uses it."""

import base64
import json
import threading
import urllib.request

import pytest
from botocore.exceptions import ClientError

from sendback.service.events.model import EventKind
from sendback.testing import Sendback
from tests.inspection.api import Api, segment

ACCOUNT = "111122223333"


def bounce(server, message_id: str, recipient: str = "bob@example.com") -> str:
    return server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
    )["MessageId"]


# --- injection --------------------------------------------------------------------------------


def test_a_composed_mail_is_received_as_by_smtp(server, api):
    message_id = api.receive(subject="Grüße", text="one\n.two\n", client_ip="192.0.2.7", helo="mx")
    shown = api.get(f"/_sendback/messages/{message_id}")
    assert shown["from"] == "ann@sender.example"
    assert (shown["client"], shown["helo"]) == ("192.0.2.7", "mx")
    assert shown["header"].startswith("Return-Path: <ann@sender.example>\r\nReceived: from mx ")
    raw = api.call("GET", f"/_sendback/messages/{message_id}/raw")
    assert raw.octets.startswith(shown["header"].encode())
    assert raw.octets.endswith(b"\r\n\r\none\r\n.two\r\n")
    assert raw.headers["content-disposition"] == f'attachment; filename="{message_id}.eml"'
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_a_raw_mail_is_kept_octet_for_octet(api):
    octets = b"Subject: raw\r\n\r\n.\r\n..dots\r\n\xff\x00end"
    message_id = api.receive(raw_base64=base64.b64encode(octets).decode())
    raw = api.call("GET", f"/_sendback/messages/{message_id}/raw").octets
    assert raw.endswith(b"\r\n" + octets + b"\r\n")
    text = api.receive(raw="Subject: text\n\nline\n")
    assert api.call("GET", f"/_sendback/messages/{text}/raw").octets.endswith(b"\r\n\r\nline\r\n")


@pytest.mark.parametrize(
    ("members", "reply"),
    [
        ({"to": ["eve@elsewhere.example"]}, "550 5.1.1 No such recipient here"),
        ({"to": ["not an address"]}, "553 5.1.3"),
        ({"from": "not an address"}, "553 5.1.7"),
        ({"raw": "Subject: x\r\n\r\nbare\nline\r\n"}, "550 5.6.0"),
        ({"raw": f"Subject: {'x' * 300_000}\r\n\r\n"}, "552 5.3.4"),
        ({"raw": f"{'Received: x' + chr(10)}" * 200 + "\n"}, "554 5.4.6"),
        ({"helo": ""}, "501 5.5.4"),
    ],
)
def test_a_refusal_has_the_reply_of_smtp(api, members, reply):
    answer = api.inject(**members)
    assert answer.status == 422
    assert answer.json["reply"].startswith(reply)
    assert str(answer.json["code"]) == reply[:3]
    assert api.get("/_sendback/messages")["messages"] == []


def test_recipients_have_their_own_replies(api):
    answer = api.inject(to=["bob@example.com", "eve@elsewhere.example"])
    assert answer.status == 201
    codes = {name: reply["code"] for name, reply in answer.json["recipients"].items()}
    assert codes == {"bob@example.com": 250, "eve@elsewhere.example": 550}


def test_a_session_with_too_many_errors_ends_with_its_last_reply(api):
    answer = api.inject(to=[f"x{number}@elsewhere.example" for number in range(150)])
    assert (answer.status, answer.json["code"]) == (422, 421)
    assert {reply["code"] for reply in answer.json["recipients"].values()} == {550}
    assert len(answer.json["recipients"]) == 100  # smtp_max_errors


def test_an_ip_filter_refuses_an_injected_mail(server, api):
    server.ses.create_receipt_filter(
        Filter={"Name": "no", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}
    )
    answer = api.inject(client_ip="192.0.2.1")
    assert (answer.status, answer.json["code"], answer.json["recipients"]) == (422, 554, {})
    assert api.inject(client_ip="198.51.100.1").status == 201


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"to": []}, "to"),
        ({"to": [5]}, "to"),
        ({"to": ["a@b>\r\nRSET"]}, "to"),
        ({"to": ["a@example.com> NOTIFY=NEVER"]}, "to"),
        ({"to": ["bob@example.com"] * 1001}, "to"),
        ({"from": "a@b\nDATA"}, "from"),
        ({"helo": "x\r\nMAIL FROM:<>"}, "helo"),
        ({"helo": "\ud800"}, "helo"),
        ({"client_ip": "localhost"}, "client_ip"),
        ({"raw_base64": "%"}, "raw_base64"),
        ({"raw": "x", "raw_base64": "eA=="}, "raw"),
        ({"raw": "\ud800"}, "raw"),
        ({"subject": "a\nBcc: x@y"}, "subject"),
        ({"subject": True}, "subject"),
        ({"sbject": "x"}, "sbject"),
        ({"verdicts": {"spf": "FAIL,dkim:PASS"}}, "verdicts"),
        ({"verdicts": []}, "verdicts"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(api, members, name):
    answer = api.inject(**members)
    assert (answer.status, answer.error) == (400, "InvalidParameter")
    assert answer.json["error"]["message"].startswith(f"{name}: ")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_refused(api, body):
    answer = api.call("POST", "/_sendback/messages", body)
    assert (answer.status, answer.error) == (400, "InvalidBody")


def test_a_form_of_a_web_page_is_no_json(api):
    answer = api.call(
        "POST",
        "/_sendback/reset",
        b"{}",
        headers={"Content-Type": "text/plain"},
    )
    assert (answer.status, answer.error) == (415, "UnsupportedMediaType")


# --- lists ------------------------------------------------------------------------------------


def test_messages_are_listed_in_order_and_page_by_page(api):
    ids = [api.receive(subject=f"mail {number}") for number in range(5)]
    assert [row["message_id"] for row in api.get("/_sendback/messages")["messages"]] == ids
    found, after = [], ""
    while after is not None:
        page = api.get("/_sendback/messages", limit="2", after=after)
        found += [row["message_id"] for row in page["messages"]]
        after = page["next"]
    assert found == ids


def test_messages_are_filtered(api):
    first = api.receive(subject="Invoice 7")
    second = api.receive(**{"from": None, "to": "carol@EXAMPLE.com", "subject": "Hello"})

    def ids(**query):
        return [row["message_id"] for row in api.get("/_sendback/messages", **query)["messages"]]

    assert ids(subject="invoice") == [first]
    assert ids(sender="<>") == [second]
    assert ids(sender="ann@SENDER.example") == [first]
    assert ids(recipient="carol@example.com") == [second]
    assert ids(state="held") == []
    assert ids(sender="nobody@sender.example") == []


def test_a_list_waits_for_the_first_message(server, api):
    first = api.receive()
    timer = threading.Timer(0.2, server.receive, kwargs={"recipients": "carol@example.com"})
    timer.start()
    found = api.get("/_sendback/messages", wait="30s", after=first)["messages"]
    assert [row["to"] for row in found] == [["carol@example.com"]]
    timer.join()


def test_a_wait_that_ends_is_an_empty_list(api):
    assert api.get("/_sendback/bounces", wait="1s")["bounces"] == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"wait": "61s"}, "wait"),
        ({"wait": "-1s"}, "wait"),
        ({"wait": "soon"}, "wait"),
        ({"wait": "9" * 900 + "s"}, "wait"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"state": "odd"}, "state"),
        ({"account": ACCOUNT}, "account"),
        ({"recipent": "x"}, "recipent"),
        ({"subject": "x" * 1001}, "subject"),
        ({"subject": "\0"}, "subject"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_by_name(api, query, name):
    answer = api.call("GET", "/_sendback/messages", **query)
    assert (answer.status, answer.error) == (400, "InvalidParameter")
    assert answer.json["error"]["message"].startswith(f"{name}: ")


def test_a_parameter_given_twice_is_refused(api):
    answer = api.request("GET", "/_sendback/messages?limit=1&limit=2")
    assert (answer.status, answer.error) == (400, "InvalidParameter")
    assert api.request("GET", "/_sendback/messages?subject=%ff").error == "InvalidQuery"


# --- deletion ---------------------------------------------------------------------------------


def test_a_deleted_message_is_gone_and_its_bounce_stays(server, api):
    message_id = api.receive()
    bounce_id = bounce(server, message_id)
    assert api.call("DELETE", f"/_sendback/messages/{message_id}").status == 204
    assert api.call("GET", f"/_sendback/messages/{message_id}").error == "NotFound"
    assert api.call("DELETE", f"/_sendback/messages/{message_id}").error == "NotFound"
    assert api.get(f"/_sendback/bounces/{bounce_id}")["original_message_id"] == message_id


def test_a_message_whose_rules_are_not_finished_is_kept(server, api):
    let_go = threading.Event()
    function = server.function("slow", lambda event, context: let_go.wait(30) and None)
    action = {"LambdaAction": {"FunctionArn": function.arn, "InvocationType": "RequestResponse"}}
    server.rules({"Actions": [action]})
    message_id = api.receive()
    answer = api.call("DELETE", f"/_sendback/messages/{message_id}")
    assert (answer.status, answer.error) == (409, "InProgress")
    assert api.call("DELETE", "/_sendback/messages").json == {"deleted": 0, "kept": 1}
    let_go.set()
    assert api.get("/_sendback/messages", state="done", wait="30s")["messages"]
    steps = api.get(f"/_sendback/messages/{message_id}")["steps"]
    assert [(step["action"], step["outcome"]) for step in steps] == [("Lambda", "done")]
    assert api.call("DELETE", "/_sendback/messages").json == {"deleted": 1, "kept": 0}


def test_a_large_message_is_deleted_with_its_file(server, api):
    message_id = server.receive(
        b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y\r\n" * 200_000,
        sender="a@b.example",
        recipients="bob@example.com",
    )
    assert len(api.call("GET", f"/_sendback/messages/{message_id}/raw").octets) > 600_000
    assert api.call("DELETE", f"/_sendback/messages/{message_id}").status == 204
    assert api.get("/_sendback/messages")["messages"] == []


# --- bounces ----------------------------------------------------------------------------------


def test_a_bounce_is_found_by_what_it_is_about(server, api):
    message_id = api.receive(to=["bob@example.com", "carol@example.com"])
    bounce_id = bounce(server, message_id, "carol@example.com")

    def ids(**query):
        return [row["message_id"] for row in api.get("/_sendback/bounces", **query)["bounces"]]

    assert ids(original=message_id, wait="10s") == [bounce_id]
    assert ids(recipient="carol@EXAMPLE.com") == [bounce_id]
    assert ids(recipient="bob@example.com") == []
    assert ids(to="ann@sender.example") == [bounce_id]
    assert ids(to="bob@example.com") == []
    assert ids(original="other") == []


def test_a_bounce_is_shown_with_its_attempts_and_its_report(server, api):
    bounce_id = bounce(server, api.receive())
    server.bounces.wait_for()
    shown = api.get(f"/_sendback/bounces/{bounce_id}")
    assert [attempt["outcome"] for attempt in shown["tries"]] == ["captured"]
    (recipient,) = shown["dsn"]["recipients"]
    assert (recipient["action"], recipient["status"]) == ("failed", "5.1.1")
    assert recipient["final_recipient"] == "bob@example.com"
    raw = api.call("GET", f"/_sendback/bounces/{bounce_id}/raw")
    assert b"multipart/report" in raw.octets
    assert api.call("GET", "/_sendback/bounces/none").status == 404
    assert api.call("GET", "/_sendback/bounces/none/raw").status == 404


# --- clock, reset, accounts -------------------------------------------------------------------


def test_the_clock_moves_forward(server, api):
    message_id = api.receive()
    assert api.call("POST", "/_sendback/clock", {"advance": "25h"}).status == 200
    with pytest.raises(server.ses.exceptions.MessageRejected):
        bounce(server, message_id)
    before = api.get("/_sendback/clock")["now"]
    for advance in ("-1h", "0s", "9" * 400 + "h", "99999d", "", "soon"):
        answer = api.call("POST", "/_sendback/clock", {"advance": advance})
        assert (answer.status, answer.error) == (400, "InvalidParameter"), advance
    assert api.call("POST", "/_sendback/clock", {}).status == 400
    assert api.get("/_sendback/clock")["now"] >= before


def test_reset_empties_the_server(server, api):
    api.receive()
    assert api.call("POST", "/_sendback/reset", {}).status == 204
    assert api.get("/_sendback/messages")["messages"] == []
    assert server.ses.list_identities()["Identities"] == []


def test_accounts_are_apart(server, api):
    server.run(server.app.accounts.ensure(ACCOUNT))
    message_id = api.receive()
    assert api.get("/_sendback/messages", account=ACCOUNT)["messages"] == []
    answer = api.call("GET", f"/_sendback/messages/{message_id}", account=ACCOUNT)
    assert answer.status == 404
    assert api.call("DELETE", "/_sendback/messages", account=ACCOUNT).json["deleted"] == 0


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods_and_paths_are_refused(api, method):
    answer = api.request(method, "/_sendback/messages")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, POST, DELETE"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/_sendback", "/_sendback/", "/_sendback/nothing", "/_sendback/messages/", "/_aws/ses/x",
     "/_sendback/messages/a/b/c", f"/_sendback/messages/{'x' * 300}"],
)  # fmt: skip
def test_unknown_paths_are_not_found(api, path):
    assert api.request("GET", path).status == 404


@pytest.mark.parametrize("name", ["../../etc/passwd", "%00", "'; drop table messages", "💌"])
def test_an_id_is_only_compared(api, name):
    assert api.request("GET", f"/_sendback/messages/{segment(name)}").status == 404


# --- access -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "localhost.evil.example"},
        {"Host": "["},
        {"Host": "10.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_sites_are_refused(api, headers):
    for path in ("/_sendback/messages", "/_aws/ses", "/_sendback/openapi.json"):
        answer = api.request("GET", path, headers=headers)
        assert answer.status == 403
        assert answer.error in {"HostNotAllowed", "OriginNotAllowed"}


@pytest.mark.parametrize("host", ["localhost:99", "127.0.0.1", "[::1]:4579", "LOCALHOST"])
def test_names_of_this_machine_are_allowed(api, host):
    assert api.request("GET", "/_sendback/messages", headers={"Host": host}).status == 200


def test_with_a_token_each_request_needs_it():
    token = "s3cret-token-of-the-tests"
    with Sendback(inspection_token=token) as server:
        api = Api(server.endpoint_url)
        for given in ("", "Bearer", "Bearer wrong", f"Basic {token}", f"Bearer {token}x"):
            for path in ("/_sendback/messages", "/_aws/ses", "/_sendback/events"):
                answer = api.request("GET", path, headers={"Authorization": given})
                assert (answer.status, answer.error) == (401, "Unauthorized")
                assert answer.headers["www-authenticate"].startswith("Bearer")
        headers = {"Authorization": f"bearer {token}", "Host": "mail.example.com"}
        assert api.request("GET", "/_sendback/messages", headers=headers).status == 200
        assert token not in repr(server.app.settings)


def test_elsewhere_than_on_loopback_it_is_off_without_a_token():
    with Sendback(http_listen="0.0.0.0:0", development_key="false") as server:
        port = server.endpoint_url.rpartition(":")[2]
        api = Api(f"http://127.0.0.1:{port}")
        for path in ("/_sendback/messages", "/_aws/ses"):
            answer = api.request("GET", path)
            assert (answer.status, answer.error) == (403, "Disabled")


def test_a_server_of_real_mail_needs_a_token_and_keeps_its_clock_and_data():
    token = "of-sixteen-characters"
    settings = {"outbound": "mx", "dns": "127.0.0.1:9", "mta_sts": False}
    with Sendback(**settings) as server:
        answer = Api(server.endpoint_url).request("GET", "/_sendback/messages")
        assert (answer.status, answer.error) == (403, "Disabled")
    with Sendback(inspection_token=token, **settings) as server:
        api = Api(server.endpoint_url)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        assert api.request("GET", "/_sendback/messages", headers=headers).status == 200
        for path, body in (("clock", b'{"advance": "1h"}'), ("reset", b"{}")):
            answer = api.request("POST", f"/_sendback/{path}", body, headers=headers)
            assert (answer.status, answer.error) == (409, "RealMail")


# --- LocalStack -------------------------------------------------------------------------------


def test_the_mailbox_of_localstack_has_the_sent_mail(server, api):
    bounce_id = bounce(server, api.receive())
    server.bounces.wait_for()
    (mail,) = api.get("/_aws/ses")["messages"]
    assert (mail["Id"], mail["Source"]) == (bounce_id, "mailer-daemon@example.com")
    assert mail["Destination"] == {"ToAddresses": ["ann@sender.example"]}
    assert "could not be delivered" in mail["Body"]["text_part"]
    assert mail["RawData"].startswith("Date: ")
    assert api.get("/_aws/ses", id=bounce_id)["messages"] == [mail]
    assert api.get("/_aws/ses", id="other")["messages"] == []
    assert api.get("/_aws/ses", email="mailer-daemon@example.com")["messages"] == [mail]
    assert api.get("/_aws/ses", email="ann@sender.example")["messages"] == []
    assert api.call("DELETE", "/_aws/ses", id="other").status == 204
    assert api.get("/_aws/ses")["messages"] == [mail]
    assert api.call("DELETE", "/_aws/ses").status == 204
    assert api.get("/_aws/ses")["messages"] == []


# --- events -----------------------------------------------------------------------------------


class Stream:
    """Reads server-sent events as EventSource does."""

    def __init__(self, api: Api, path: str = "/_sendback/events", **headers: str) -> None:
        request = urllib.request.Request(api.url + path, headers=headers)
        self.response = urllib.request.urlopen(request, timeout=30)
        assert self.response.headers["content-type"].startswith("text/event-stream")
        assert self.response.readline().startswith(b":")

    def next(self) -> dict:
        """Return the next event: `id`, `event` and `data`."""
        found = {}
        while True:
            line = self.response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if name and name != "retry":
                found[name] = value
            elif not name and "data" in found:
                return {**found, "data": json.loads(found["data"])}

    def of_kind(self, kind: str) -> dict:
        while (event := self.next())["event"] != kind:
            pass
        return event["data"]

    def close(self) -> None:
        self.response.close()


def test_events_tell_the_story_of_a_mail(server, api):
    server.rules({"Actions": [{"StopAction": {"Scope": "RuleSet"}}]})
    stream = Stream(api)
    message_id = api.receive()
    received = stream.of_kind("received")
    assert (received["message_id"], received["to"]) == (message_id, ["bob@example.com"])
    step = stream.of_kind("step")
    assert (step["message_id"], step["action"]) == (message_id, "Stop")
    bounce_id = bounce(server, message_id)
    assert stream.of_kind("bounce")["original_message_id"] == message_id
    attempt = stream.of_kind("attempt")
    assert (attempt["message_id"], attempt["state"]) == (bounce_id, "captured")
    api.inject(to=["eve@elsewhere.example"])
    refused = stream.of_kind("refused")
    assert refused["reply"] == "550 5.1.1 No such recipient here"
    assert refused["to"] == ["eve@elsewhere.example"]
    server.ses.delete_identity(Identity="example.com")
    assert stream.of_kind("identity")["change"] == "deleted"
    stream.close()


def changes(subscription) -> list[tuple[str, str]]:
    """What the events since the last call say, with the identity if they name one."""
    events = subscription.take().events
    return [(event.fields.get("identity", ""), event.fields["change"]) for event in events]


TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
POLICY = {
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "111122223333"},
            "Action": "ses:SendEmail",
            "Resource": "arn:aws:ses:us-east-1:000000000000:identity/example.com",
        }
    ],
}


def test_changes_of_identities_are_events(server):
    ses, of = server.ses, {"Identity": "example.com"}
    policy = {**of, "PolicyName": "mine"}
    with server.app.events.subscribe([EventKind.IDENTITY]) as subscription:
        ses.verify_domain_dkim(Domain="example.com")
        ses.set_identity_dkim_enabled(**of, DkimEnabled=True)
        ses.set_identity_dkim_enabled(**of, DkimEnabled=False)
        ses.set_identity_mail_from_domain(**of, MailFromDomain="mail.example.com")
        for kind in ("Bounce", "Complaint"):
            ses.set_identity_notification_topic(**of, NotificationType=kind, SnsTopic=TOPIC)
        ses.set_identity_headers_in_notifications_enabled(
            **of, NotificationType="Bounce", Enabled=True
        )
        ses.set_identity_feedback_forwarding_enabled(**of, ForwardingEnabled=False)
        ses.put_identity_policy(**policy, Policy=json.dumps(POLICY))
        ses.delete_identity_policy(**policy)
        ses.delete_identity_policy(**policy)  # it is gone: no event
        server.verify("other.example", "ann@third.example", "example.com")
        found = changes(subscription)
    assert found == [
        *(
            ("example.com", change)
            for change in (
                "dkim_requested",
                "dkim_enabled",
                "dkim_disabled",
                "mail_from_changed",
                "topic_changed",
                "topic_changed",
                "headers_changed",
                "forwarding_changed",
                "policy_put",
                "policy_deleted",
            )
        ),
        ("other.example", "requested"),
        ("ann@third.example", "requested"),
    ]


def test_what_is_refused_is_no_event(server):
    with server.app.events.subscribe() as subscription:
        with pytest.raises(ClientError):
            server.ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="a.b")
        with pytest.raises(ClientError):
            server.ses.delete_receipt_rule(RuleSetName="none", RuleName="x")
        server.ses.delete_receipt_rule_set(RuleSetName="none")
        server.ses.delete_receipt_filter(FilterName="none")
        assert changes(subscription) == []


def test_changes_of_rules_and_filters_are_events(server):
    ses = server.ses
    rule = {"Name": "stop", "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}
    entry = {"Name": "no", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}
    with server.app.events.subscribe([EventKind.SETTING]) as subscription:
        ses.create_receipt_rule_set(RuleSetName="mine")
        ses.create_receipt_rule(RuleSetName="mine", Rule=rule)
        ses.set_active_receipt_rule_set(RuleSetName="mine")
        ses.set_active_receipt_rule_set(RuleSetName="mine")
        ses.set_active_receipt_rule_set()
        ses.delete_receipt_rule_set(RuleSetName="mine")
        ses.create_receipt_filter(Filter=entry)
        ses.delete_receipt_filter(FilterName="no")
        assert [change for _, change in changes(subscription)] == [
            "rule set mine is created",
            "rule set mine is changed",
            "rule set mine is active",
            "no rule set is active",
            "rule set mine is deleted",
            "filter no is created",
            "filter no is deleted",
        ]
        server.rules(rule)
        server.apply({"faults": [{"at": "mail", "name": "one", "drop": True}]})
        assert [
            (event.account_id, event.fields["change"]) for event in subscription.take().events
        ] == [
            ("000000000000", "rule set testing is created"),
            ("000000000000", "rule set testing is active"),
            (None, "fault one is added"),
        ]


def test_smtp_refusals_of_clients_are_events(server, api):
    stream = Stream(api, "/_sendback/events?kind=refused")
    with pytest.raises(Exception, match=r"550|No such"):
        server.receive(recipients="eve@elsewhere.example")
    event = stream.of_kind("refused")
    assert (event["command"], event["client"]) == ("RCPT", "127.0.0.1")
    assert event["to"] == ["eve@elsewhere.example"]
    stream.close()


def test_a_reader_that_comes_back_gets_what_it_missed(api):
    stream = Stream(api)
    first = api.receive(subject="first")
    seen = stream.next()
    assert seen["data"]["message_id"] == first
    stream.close()
    missed = api.receive(subject="missed")
    again = Stream(api, **{"Last-Event-ID": seen["id"]})
    assert again.of_kind("received")["message_id"] == missed
    again.close()


@pytest.mark.parametrize("query", ["kind=odd", "after=x", "after=-1", f"after={10**30}"])
def test_a_stream_with_odd_parameters_is_refused(api, query):
    answer = api.request("GET", f"/_sendback/events?{query}")
    assert (answer.status, answer.error) == (400, "InvalidParameter")


def test_streams_are_counted_and_end_with_the_server():
    with Sendback() as server:
        api = Api(server.endpoint_url)
        streams = [Stream(api) for _ in range(100)]
        answer = api.call("GET", "/_sendback/messages", wait="1s")
        assert (answer.status, answer.error) == (503, "TooManyWaiting")
        assert api.request("GET", "/_sendback/events").status == 503
        streams.pop().close()
        while api.request("GET", "/_sendback/messages?wait=1s").status == 503:
            pass
    for stream in streams:
        stream.response.read()  # to its end
        stream.close()


def test_events_of_hostile_mail_are_bounded_lines(api):
    stream = Stream(api)
    api.receive(raw="Subject: a\x1b[31m\xe9\u2028 b\n" + "To: x\n" * 50 + "\nbody\n")
    event = stream.of_kind("received")
    assert event["subject"].startswith("a\x1b[31m")
    stream.close()


def test_after_a_reset_earlier_events_are_not_repeated(server, api):
    api.receive(subject="before")
    server.reset()
    server.verify("example.com")
    after = api.receive(subject="after")
    stream = Stream(api, "/_sendback/events?after=0&kind=received")
    assert stream.of_kind("received")["message_id"] == after
    stream.close()


def test_a_body_beyond_the_limit_of_http_is_refused(api):
    answer = api.request("POST", "/_sendback/messages", b"x" * (2 * 2**20 + 1))
    assert answer.status == 413
