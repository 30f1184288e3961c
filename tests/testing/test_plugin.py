"""The fixtures, in pytest processes of their own."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

MAIL_AND_BOUNCE = """
    def bounce(server, message_id, recipient):
        server.ses.send_bounce(
            OriginalMessageId=message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
        )
"""


@pytest.fixture
def run(tmp_path):
    """Runs pytest on a file; returns its output, and checks how many tests passed and failed."""

    def run(text, *arguments, passed=0, failed=0, errors=0, conftest=""):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        (tmp_path / "conftest.py").write_text(textwrap.dedent(conftest))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)s?", output)}
        wanted = {"passed": passed, "failed": failed, "error": errors}
        assert counts == {word: n for word, n in wanted.items() if n}, output
        return output

    return run


def test_the_server_is_empty_for_each_test(run):
    run(
        MAIL_AND_BOUNCE
        + """
    def test_one(sendback):
        sendback.verify("example.com")
        received = sendback.receive(recipients="bob@example.com")
        bounce(sendback, received, "bob@example.com")
        assert sendback.bounces.wait_for(original=received).dsn.statuses == ("5.1.1",)
        sendback.clock.advance(hours=25)
        sendback.endpoint = sendback.endpoint_url

    def test_two(sendback, sendback_ses):
        from datetime import UTC, datetime, timedelta
        assert list(sendback.received) == list(sendback.bounces) == []
        assert sendback_ses.list_identities()["Identities"] == []
        assert sendback.clock.now() - datetime.now(UTC) < timedelta(minutes=1)
        assert sendback.endpoint == sendback.endpoint_url  # the same server
    """,
        passed=2,
    )


def test_the_environment_is_for_code_under_test(run):
    run(
        """
    import os
    import boto3

    def test_it(sendback, sendback_env, sendback_inbox):
        received = sendback_inbox.receive()
        assert os.environ["AWS_ENDPOINT_URL_SES"] == sendback.endpoint_url
        assert "AWS_PROFILE" not in os.environ
        boto3.client("ses").send_bounce(
            OriginalMessageId=received,
            BounceSender="mailer-daemon@inbox.example.com",
            BouncedRecipientInfoList=[
                {"Recipient": str(sendback_inbox), "BounceType": "DoesNotExist"}
            ],
        )
        assert sendback_inbox.wait_for_bounce().original == received

    def test_it_is_undone():
        assert "AWS_ENDPOINT_URL_SES" not in os.environ
        assert os.environ["AWS_PROFILE"] == "mine"
    """,
        passed=2,
        conftest="import os; os.environ['AWS_PROFILE'] = 'mine'",
    )


def test_a_marker_sets_settings(run):
    run(
        """
    import pytest

    pytestmark = pytest.mark.sendback(region="eu-west-1")

    @pytest.mark.sendback(send_bounce_rate=1)
    def test_both(sendback):
        assert sendback.topic("t").arn.startswith("arn:aws:sns:eu-west-1:")
        assert sendback.app.settings.send_bounce_rate == 1

    def test_of_the_module(sendback):
        assert sendback.topic("t").arn.startswith("arn:aws:sns:eu-west-1:")
        assert sendback.app.settings.send_bounce_rate == 0
        assert sendback.app.settings.hostname == "mx.test.example"
    """,
        passed=2,
        conftest="""
    import pytest

    @pytest.fixture(scope="session")
    def sendback_settings():
        return {"hostname": "mx.test.example"}
    """,
    )


def test_a_server_that_a_test_has_stopped_is_replaced(run):
    run(
        """
    def test_one(sendback):
        sendback.stop()

    def test_two(sendback):
        sendback.verify("example.com")
    """,
        passed=2,
    )


def test_a_wrong_marker_says_what_is_wrong(run):
    output = run(
        """
    import pytest

    @pytest.mark.sendback(retenshun="2h")
    def test_name(sendback):
        pass

    @pytest.mark.sendback("2h")
    def test_position(sendback):
        pass
    """,
        errors=2,
    )
    assert "no setting has this name: did you mean retention?" in output
    assert "the marker sendback takes settings by name" in output


def test_a_failed_test_shows_what_is_on_the_server(run):
    output = run(
        MAIL_AND_BOUNCE
        + """
    def test_it(sendback):
        sendback.verify("example.com")
        action = {"HeaderName": "X-A", "HeaderValue": "1"}
        sendback.rules({"Actions": [{"AddHeaderAction": action}]})
        received = sendback.receive(sender="ann@sender.example", recipients="bob@example.com")
        bounce(sendback, received, "bob@example.com")
        sendback.received.wait_for(message_id=received, processed=True)
        sendback.bounces.wait_for(original=received)
        assert 0
    """,
        failed=1,
    )
    assert "-- Sendback --" in output
    assert re.search(r"[0-9a-v]{40} from <ann@sender.example> to bob@example.com, 'Hello'", output)
    assert "rule rule-1, AddHeader: done" in output
    assert re.search(r"to ann@sender.example: captured.*bounces bob@example.com \(5.1.1\)", output)


def test_nothing_is_imported_without_a_fixture(run):
    run(
        """
    import sys

    def test_it():
        heavy = {"sqlalchemy", "uvicorn", "boto3", "botocore", "starlette"} & set(sys.modules)
        assert not heavy
        assert [name for name in sys.modules if name.startswith("sendback.")] == [
            "sendback.pytest_plugin"
        ]
    """,
        passed=1,
    )


def test_four_workers_of_xdist(run):
    run(
        MAIL_AND_BOUNCE
        + """
    import pytest

    @pytest.mark.parametrize("number", range(40))
    def test_it(sendback, sendback_inbox, number):
        received = sendback_inbox.receive(subject=str(number))
        assert [mail.subject for mail in sendback.received] == [str(number)]
        sendback.verify("example.com")
        bounce(sendback, received, str(sendback_inbox))
        assert sendback_inbox.wait_for_bounce().original == received
    """,
        "-n4",
        passed=40,
    )


def test_anyio(run):
    run(
        """
    import asyncio
    import pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    async def test_it(sendback):
        sendback.verify("example.com")
        seen = []

        async def other():
            seen.append(1)

        received, _ = await asyncio.gather(
            sendback.receive_async(recipients="bob@example.com"), other()
        )
        assert [mail.message_id for mail in sendback.received] == [received]
        assert seen
    """,
        passed=1,
    )


def test_pytest_asyncio(run):
    pytest.importorskip("pytest_asyncio")
    run(
        """
    import pytest
    from sendback.testing import Sendback

    @pytest.mark.asyncio
    async def test_it(sendback):
        sendback.verify("example.com")
        assert await sendback.receive_async(recipients="bob@example.com")

    @pytest.mark.asyncio
    async def test_a_server_of_its_own():
        async with Sendback() as server:
            assert server.endpoint_url
    """,
        passed=2,
    )
