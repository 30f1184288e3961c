"""`sendback bounce`: SendBounce from the command line, through the API."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, load_settings
from sendback.cli.output import print_fields
from sendback.redaction import shown_url

# The names of sendback.dsn.REASONS, without the time to import it (a test compares them).
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
        str, typer.Argument(help="The received message: the ID in its 250 reply.")
    ],
    sender: Annotated[str, typer.Option(help="The bounce's From: a verified identity.")],
    recipient: Annotated[
        list[str], typer.Option(help="A recipient of the message that bounces; may be repeated.")
    ],
    reason: Annotated[str, typer.Option(help=f"One of {', '.join(REASONS)}.")] = "DoesNotExist",
    explanation: Annotated[
        str | None, typer.Option(help="The text for people, in place of the generated one.")
    ] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            envvar="AWS_ENDPOINT_URL_SES", help="Where the API is.", show_default="http_listen"
        ),
    ] = None,
    as_json: Json = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
) -> None:
    """Bounce a received message, as SendBounce does.

    Signs with the standard AWS credentials: environment, profile, …
    """
    if reason not in REASONS:
        raise usage_error(f"--reason is one of {', '.join(REASONS)}, not {reason!r}")
    settings = load_settings(config).settings
    request: dict[str, Any] = {
        "OriginalMessageId": message_id,
        "BounceSender": sender,
        "BouncedRecipientInfoList": [
            {"Recipient": address, "BounceType": reason} for address in recipient
        ],
    }
    if explanation is not None:
        request["Explanation"] = explanation
    endpoint = endpoint_url or f"http://{settings.http_listen}"
    print_fields(_send(endpoint, settings.region, request), as_json=as_json)


def _send(endpoint: str, region: str, request: dict[str, Any]) -> dict[str, Any]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        client = boto3.client("ses", endpoint_url=endpoint, region_name=region)
    except ValueError:
        shown = shown_url(endpoint)
        raise usage_error(f"--endpoint-url is a URL (http://HOST:PORT), not {shown}") from None
    except BotoCoreError as error:  # the profile that AWS_PROFILE names, say
        raise CommandFailedError(str(error)) from None
    try:
        answer = client.send_bounce(**request)
    except NoCredentialsError:
        raise CommandFailedError(
            "no AWS credentials were found; for the development key: "
            "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
        ) from None
    except ClientError as error:
        details = error.response["Error"]
        raise CommandFailedError(f"{details['Code']}: {details['Message']}") from None
    except BotoCoreError as error:
        raise CommandFailedError(f"{error} (does `sendback serve` run there?)") from None
    return {"message_id": answer["MessageId"]}
