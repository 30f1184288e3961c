"""Faults, settings and the doctor in the console."""


def test_faults(server, console):
    path = "/console/faults"
    assert "nothing fails on purpose" in console.get(path).text
    fields = {
        "do": "add",
        "at": "api",
        "operation": "SendBounce",
        "error": "Throttling",
        "first": "1",
    }
    added = console.post(path, {**fields, "name": "slow"})
    assert "Fault slow is added" in added.text
    again = console.post(path, {**fields, "name": "slow"})
    assert again.status == 400
    assert console.post(path, {**fields, "first": "many"}).status == 400
    wrong = console.post(path, {**fields, "probability": "7"})
    assert wrong.status == 400
    assert 'aria-invalid="true"' in wrong.html
    assert "Fault slow is removed" in console.post(path, {"do": "remove", "name": "slow"}).text
    assert console.post(path, {"do": "remove", "name": "slow"}).status == 404
    console.post(path, fields)
    assert "1 faults are removed" in console.post(path, {"do": "clear"}).text


def test_settings_without_secrets(running):
    from tests.partners.console import ConsoleClient

    server = running(inspection_token="x" * 20, outbound="smtp://user:pass-word@127.0.0.1:1")
    page = ConsoleClient(server.endpoint).get("/console/settings")
    assert "send_bounce_rate" in page.text
    assert "x" * 20 not in page.html
    assert "pass-word" not in page.html
    assert "Processes that serve" in page.text


def test_the_doctor(server, console):
    path = "/console/doctor"
    assert "Run the checks" in console.get(path).text
    page = console.post(path)
    assert page.status == 200
    assert "What was found" in page.text
