"""`sendback bounce`: call SendBounce through the API."""

from typing import Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import ConfigFile, Json, load_settings
from sendback.cli.output import print_fields
from sendback.redaction import shown_url

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
            show_default="from http_listen",
        ),
    ] = None,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Bounce a received message: call SendBounce.

    The request is signed with the standard AWS credentials, such as environment variables or a
    profile.
    """
    if reason not in REASONS:
        raise usage_error(f"--reason must be one of {', '.join(REASONS)}, not {reason!r}")
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
        raise usage_error(f"--endpoint-url must be a URL (http://HOST:PORT), not {shown}") from None
    except BotoCoreError as error:  # such as an unknown profile in AWS_PROFILE
        raise CommandFailedError(str(error)) from None
    try:
        response = client.send_bounce(**request)
    except NoCredentialsError:
        raise CommandFailedError(
            "no AWS credentials were found; to use the development key: "
            "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
        ) from None
    except ClientError as error:
        details = error.response["Error"]
        raise CommandFailedError(f"{details['Code']}: {details['Message']}") from None
    except BotoCoreError as error:
        raise CommandFailedError(f"{error} (is `sendback serve` running there?)") from None
    return {"message_id": response["MessageId"]}
