"""`sendback bounce`: call SendBounce through the API."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import ConfigFile, DataDir, Json, StoreOptions
from sendback.cli.output import print_fields
from sendback.config.settings import Settings
from sendback.config.types import Listen
from sendback.redaction import shown_url, split_url

if TYPE_CHECKING:
    from sendback.app import App

# A copy of the names in sendback.dsn.REASONS, whose import is slow. A test compares them.
REASONS = (
    "DoesNotExist",
    "MessageTooLarge",
    "ExceededQuota",
    "ContentRejected",
    "Undefined",
    "TemporaryFailure",
)


def bounce(
    message_id: Annotated[
        str, typer.Argument(help="The ID of the received message, from its 250 reply.")
    ],
    sender: Annotated[
        str, typer.Option(help="The From: address of the bounce, a verified identity.")
    ],
    recipient: Annotated[
        list[str], typer.Option(help="A recipient to bounce; repeat the option for more.")
    ],
    reason: Annotated[str, typer.Option(help=f"One of {', '.join(REASONS)}.")] = "DoesNotExist",
    explanation: Annotated[
        str | None, typer.Option(help="Human-readable text instead of the generated one.")
    ] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            envvar="AWS_ENDPOINT_URL_SES",
            help="The URL of the API.",
            show_default="of the server that runs on the data directory",
        ),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Bounce a received message: call SendBounce.

    The request is signed with the standard AWS credentials, such as environment variables or a
    profile. MESSAGE_ID may be a unique prefix if the server's data directory is on this machine.
    """
    if reason not in REASONS:
        raise usage_error(f"--reason must be one of {', '.join(REASONS)}, not {reason!r}")
    options = StoreOptions(config, data_dir, None, None)
    loaded, server = options.load()
    settings = loaded.settings
    own_url = f"http://{server.http}" if server else None
    endpoint = endpoint_url or own_url
    if endpoint is None:
        raise usage_error(
            f"no server runs on {settings.data_dir}: give the URL of the API with --endpoint-url, "
            "or name the server's data directory with --data-dir"
        )
    if endpoint == own_url:
        message_id = _whole_id(options, settings, message_id)
    request: dict[str, Any] = {
        "OriginalMessageId": message_id,
        "BounceSender": sender,
        "BouncedRecipientInfoList": [
            {"Recipient": address, "BounceType": reason} for address in recipient
        ],
    }
    if explanation is not None:
        request["Explanation"] = explanation
    advice = _advice(settings, endpoint, is_known=server is not None)
    print_fields(_send(endpoint, settings.region, request, advice), as_json=as_json)


def _whole_id(options: StoreOptions, settings: Settings, text: str) -> str:
    """Return the ID that begins with the text, or the text: the API says that it is unknown."""
    from sendback.store.engine.errors import NotFoundError

    async def work(app: "App", settings: Settings) -> str:
        try:
            return await app.messages.whole_id(settings.account_id, text)
        except NotFoundError:
            return text

    return options.run_on(settings, work)


def _advice(settings: Settings, endpoint: str, *, is_known: bool) -> str:
    """Return how to get credentials. The development key works only where the server accepts it."""
    test_key = "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    if is_known and settings.development_key:
        return f"to use the development key: {test_key}"
    own_key = "create a key with `sendback keys create`, and export it"
    if is_known or not _is_loopback(endpoint):
        return own_key
    return f"{own_key}; if the server has the development key: {test_key}"


def _is_loopback(endpoint: str) -> bool:
    try:
        host = split_url(endpoint).hostname or ""
    except ValueError:
        return False
    return Listen(host, 0).is_loopback


def _send(endpoint: str, region: str, request: dict[str, Any], advice: str) -> dict[str, Any]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        client = boto3.client("ses", endpoint_url=endpoint, region_name=region)
    except ValueError:
        shown = shown_url(endpoint)
        raise usage_error(f"--endpoint-url must be a URL (http://HOST:PORT), not {shown}") from None
    except BotoCoreError as error:  # such as an unknown profile in AWS_PROFILE
        raise CommandFailedError(str(error)) from None
    try:
        response = client.send_bounce(**request)
    except NoCredentialsError:
        raise CommandFailedError(f"no AWS credentials were found; {advice}") from None
    except ClientError as error:
        details = error.response["Error"]
        hint = ""
        if details["Code"] == "InvalidClientTokenId" and "AWS_SESSION_TOKEN" in os.environ:
            hint = "; AWS_SESSION_TOKEN is set: unset it if the key is not a temporary one"
        raise CommandFailedError(f"{details['Code']}: {details['Message']}{hint}") from None
    except BotoCoreError as error:
        raise CommandFailedError(f"{error} (is `sendback serve` running there?)") from None
    return {"message_id": response["MessageId"]}
