"""Sending quota and statistics. SES API: GetSendQuota, GetSendStatistics."""

from collections.abc import Mapping
from typing import Any

from sendback.api.services import Request, Services


async def get_send_quota(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: GetSendQuota."""
    quota = await services.sending.quota(request.caller.account_id)
    return {
        "Max24HourSend": quota.max_24_hour_send,
        "MaxSendRate": quota.max_send_rate,
        "SentLast24Hours": quota.sent_last_24_hours,
    }


async def get_send_statistics(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: GetSendStatistics. One data point for each 15 minutes of two weeks."""
    points = await services.sending.statistics(request.caller.account_id)
    return {
        "SendDataPoints": [
            {
                "Timestamp": point.timestamp,
                "DeliveryAttempts": point.delivery_attempts,
                "Bounces": point.bounces,
                "Complaints": 0,
                "Rejects": 0,
            }
            for point in points
        ]
    }


OPERATIONS = {"GetSendQuota": get_send_quota, "GetSendStatistics": get_send_statistics}
