"""What is changed in the console leaves a line."""

from datetime import timedelta

from tests.console.signing_in import FIRST_ACCOUNT, signed_in
from tests.partners.server import Server

OTHER = "111122223333"


def pause(client, domain: str) -> None:
    client.get("/console/domains")
    assert client.post("/console/domains", {"domain": domain, "do": "pause"}).status == 200


def give_password(client, account: str, user: str) -> None:
    path = f"/console/accounts/{account}/users/{user}/password"
    client.get(path)
    fields = {"new": "correct horse battery", "again": "correct horse battery"}
    assert client.post(path, fields).status == 200


def test_a_change_leaves_a_line(console):
    assert "No changes" in console.get("/console/audit").text
    pause(console, "example.net")
    page = console.get("/console/audit")
    for text in ("Delivery to example.net is paused.", "developer", "127.0.0.1", "/domains"):
        assert text in page.text


def test_what_fails_leaves_none(console):
    console.get("/console/domains")
    console.post("/console/domains", {"domain": "no domain", "do": "pause"})
    assert "No changes" in console.get("/console/audit").text


def test_an_account_sees_its_own_lines_and_the_operator_all(running):
    server = running(development_key="false")
    server.issue(OTHER, "ann")
    operator, other = signed_in(server), signed_in(server, OTHER)
    pause(operator, "example.net")
    give_password(other, OTHER, "ann")
    own = other.get("/console/audit").text
    assert "password of ann" in own
    assert "example.net" not in own
    assert "Signed in by access key AKIA" in own
    whole = operator.get("/console/audit").text
    assert "password of ann" in whole
    assert "example.net" in whole
    first = operator.get("/console/audit?account=own").text
    assert "password of ann" not in first
    assert "example.net" in first


def test_the_lines_are_paged_and_deleted_after_the_history(server, console, clock):
    for number in range(53):
        pause(console, f"d{number}.example")
        clock.advance(timedelta(seconds=1))
    page = console.get("/console/audit")
    assert "d52.example" in page.text
    assert "d2.example" not in page.text
    older = page.html.partition('rel="next" href="')[2].partition('"')[0]
    assert "d2.example is paused" in console.get(older).text
    clock.advance(timedelta(days=15))
    server.run(server.app.housekeeping.sweep())
    assert "No changes" in console.get("/console/audit").text


def test_a_line_that_cannot_be_written_does_not_fail_the_change(
    server: Server, console, monkeypatch, caplog
):
    write = server.app.store.write

    async def fail(unit):
        if type(unit).__name__ == "AddAuditLine":
            raise RuntimeError("no")
        return await write(unit)

    monkeypatch.setattr(server.app.store, "write", fail)
    pause(console, "example.net")
    assert "audit_line_lost account=000000000000 user=developer path=/domains" in caplog.text


def test_the_page_needs_its_permission(running):
    server = running(development_key="false")
    client = signed_in(server, user="ann")
    document = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sendback:ReadMail",'
        '"Resource":"*"}]}'
    )
    server.run(server.app.accounts.put_policy(FIRST_ACCOUNT, "ann", "mail", document))
    assert client.get("/console/audit").status == 403


def test_a_position_that_is_none(console):
    assert console.get("/console/audit?before=%27;--").status == 400
