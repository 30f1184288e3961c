"""Topics: notifications posted to a webhook in SNS's format, or published by SNS's API."""

from datetime import timedelta

from sendback.actions.aws import AwsClients, is_aws, region_of
from sendback.actions.sns_message import SnsSigner, post_body
from sendback.clock import Clock
from sendback.net.connector import Connector, ConnectorError
from sendback.redaction import shown_url, shown_wrong, split_url
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError

# SNS developer guide, "HTTP/S delivery policies": three retries, 20 seconds apart; 15 s an answer.
_WAITS = (timedelta(seconds=20),) * 3
_SECONDS = 15.0
_TOO_MANY = 429


class TopicPublishers:
    """Implements `ports.Topics`."""

    def __init__(
        self, clients: AwsClients, connector: Connector, signer: SnsSigner, clock: Clock
    ) -> None:
        self._clients = clients
        self._connector = connector
        self._signer = signer
        self._clock = clock

    async def check(self, target: str, topic_arn: str) -> None:
        """Check the topic, but send nothing to a webhook: it may be down now and up later."""
        if is_aws(target):
            arguments = {"TopicArn": topic_arn}
            region = region_of(topic_arn)
            await self._clients.call("sns", target, "get_topic_attributes", arguments, region)
        elif not is_url(target):
            raise UnknownTargetError(f"{shown_wrong(target)} is no topic")

    async def publish(self, target: str, topic_arn: str, subject: str, message: str) -> str:
        if is_aws(target):
            arguments = {"TopicArn": topic_arn, "Subject": subject, "Message": message}
            region = region_of(topic_arn)
            answer = await self._clients.call("sns", target, "publish", arguments, region)
            return f"published as {answer['MessageId']}"
        return await self._post(target, topic_arn, subject, message)

    async def _post(self, url: str, topic_arn: str, subject: str, message: str) -> str:
        if not is_url(url):
            raise UnknownTargetError(f"{shown_wrong(url)} is no topic", final=True)
        await self._signer.prepare()
        value = self._signer.message(topic_arn, subject, message, self._clock.now())
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "User-Agent": "Amazon Simple Notification Service Agent",
            "x-amz-sns-message-type": "Notification",
            "x-amz-sns-message-id": value["MessageId"],
            "x-amz-sns-topic-arn": topic_arn,
            "x-amz-sns-subscription-arn": f"{topic_arn}:sendback",
        }
        try:
            answer = await self._connector.post(url, headers, post_body(value), _SECONDS)
        except ConnectorError as error:
            raise ActionFailedError(str(error), final=error.final, waits=_WAITS) from error
        _check_status(url, answer.status)
        return f"{shown_url(url)} answered {answer.status}"


def is_url(target: str) -> bool:
    """Whether the target is a URL to post to."""
    try:
        return split_url(target).scheme in {"http", "https"}
    except ValueError:
        return False


def _check_status(url: str, status: int) -> None:
    """Raise `ActionFailedError` unless 2xx; as in SNS, 4xx other than 429 are final."""
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 §15
        return
    final = 400 <= status < 500 and status != _TOO_MANY  # noqa: PLR2004
    followed = " (redirects are not followed)" if 300 <= status < 400 else ""  # noqa: PLR2004
    text = f"{shown_url(url)} answered {status}{followed}"
    raise ActionFailedError(text, final=final, waits=_WAITS)
