"""Attributes of identities. SES API: the operations on DKIM, MAIL FROM and notifications."""

from collections.abc import Mapping, Sequence
from typing import Any

from sendback.api.operations.identities import checked_names, named_identity
from sendback.api.services import Request, Services

Output = Mapping[str, Any]


async def set_identity_dkim_enabled(request: Request, services: Services) -> Output:
    """SES API: SetIdentityDkimEnabled."""
    await services.identity_attributes.set_dkim_enabled(
        *named_identity(request), enabled=request.input["DkimEnabled"]
    )
    return {}


async def get_identity_dkim_attributes(request: Request, services: Services) -> Output:
    """SES API: GetIdentityDkimAttributes. An address has the tokens of its domain."""
    found = await services.identity_attributes.dkim(*_names(request))
    return {
        "DkimAttributes": {
            name: {
                "DkimEnabled": attributes.enabled,
                "DkimVerificationStatus": attributes.status.value,
                "DkimTokens": attributes.tokens,
            }
            for name, attributes in found.items()
        }
    }


async def set_identity_mail_from_domain(request: Request, services: Services) -> Output:
    """SES API: SetIdentityMailFromDomain. Without a domain, removes the setting."""
    await services.identity_attributes.set_mail_from(
        *named_identity(request),
        request.input.get("MailFromDomain", ""),
        request.input.get("BehaviorOnMXFailure"),
    )
    return {}


async def get_identity_mail_from_domain_attributes(request: Request, services: Services) -> Output:
    """SES API: GetIdentityMailFromDomainAttributes."""
    found = await services.identity_attributes.mail_from(*_names(request))
    return {
        "MailFromDomainAttributes": {
            name: {
                "MailFromDomain": attributes.domain,
                "MailFromDomainStatus": attributes.status.value,
                "BehaviorOnMXFailure": attributes.behavior_on_mx_failure,
            }
            for name, attributes in found.items()
        }
    }


async def set_identity_notification_topic(request: Request, services: Services) -> Output:
    """SES API: SetIdentityNotificationTopic. Without a topic, removes the setting.

    The SDKs send an absent topic as no parameter; an empty one is refused, as by the live service.
    """
    await services.identity_attributes.set_topic(
        *named_identity(request),
        request.input["NotificationType"],
        request.input.get("SnsTopic"),
    )
    return {}


async def set_identity_feedback_forwarding_enabled(request: Request, services: Services) -> Output:
    """SES API: SetIdentityFeedbackForwardingEnabled."""
    await services.identity_attributes.set_forwarding(
        *named_identity(request), enabled=request.input["ForwardingEnabled"]
    )
    return {}


async def set_identity_headers_in_notifications_enabled(
    request: Request, services: Services
) -> Output:
    """SES API: SetIdentityHeadersInNotificationsEnabled."""
    await services.identity_attributes.set_headers(
        *named_identity(request),
        request.input["NotificationType"],
        enabled=request.input["Enabled"],
    )
    return {}


async def get_identity_notification_attributes(request: Request, services: Services) -> Output:
    """SES API: GetIdentityNotificationAttributes."""
    found = await services.identity_attributes.notifications(*_names(request))
    return {
        "NotificationAttributes": {
            name: {
                **{f"{kind}Topic": settings.topics.get(kind, "") for kind in _KINDS},
                "ForwardingEnabled": settings.forwarding_enabled,
                **{
                    f"HeadersIn{kind}NotificationsEnabled": settings.headers.get(kind, False)
                    for kind in _KINDS
                },
            }
            for name, settings in found.items()
        }
    }


_KINDS = ("Bounce", "Complaint", "Delivery")


def _names(request: Request) -> tuple[str, Sequence[str]]:
    return request.caller.account_id, checked_names(request)


OPERATIONS = {
    "GetIdentityDkimAttributes": get_identity_dkim_attributes,
    "GetIdentityMailFromDomainAttributes": get_identity_mail_from_domain_attributes,
    "GetIdentityNotificationAttributes": get_identity_notification_attributes,
    "SetIdentityDkimEnabled": set_identity_dkim_enabled,
    "SetIdentityFeedbackForwardingEnabled": set_identity_feedback_forwarding_enabled,
    "SetIdentityHeadersInNotificationsEnabled": set_identity_headers_in_notifications_enabled,
    "SetIdentityMailFromDomain": set_identity_mail_from_domain,
    "SetIdentityNotificationTopic": set_identity_notification_topic,
}
