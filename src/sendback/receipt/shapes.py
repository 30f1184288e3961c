"""Convert rules from and to the form of the API, the store and setup files.

One table maps members to fields. The input has the structure of botocore's model, from
`aws.query.decode`, JSON or TOML.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

from sendback.errors import SendbackError
from sendback.receipt.model import (
    Action,
    AddHeaderAction,
    BounceAction,
    ConnectAction,
    Encoding,
    InvocationType,
    LambdaAction,
    Rule,
    Rules,
    S3Action,
    SNSAction,
    StopAction,
    TlsPolicy,
    WorkmailAction,
)

# SES API: ReceiptAction's members, in the order of responses.
ACTIONS: dict[str, type[Action]] = {
    "S3Action": S3Action,
    "BounceAction": BounceAction,
    "WorkmailAction": WorkmailAction,
    "LambdaAction": LambdaAction,
    "StopAction": StopAction,
    "AddHeaderAction": AddHeaderAction,
    "SNSAction": SNSAction,
    "ConnectAction": ConnectAction,
}
_MEMBERS: dict[str, str] = {
    "TopicArn": "topic_arn",
    "BucketName": "bucket_name",
    "ObjectKeyPrefix": "object_key_prefix",
    "KmsKeyArn": "kms_key_arn",
    "IamRoleArn": "iam_role_arn",
    "SmtpReplyCode": "smtp_reply_code",
    "StatusCode": "status_code",
    "Message": "message",
    "Sender": "sender",
    "OrganizationArn": "organization_arn",
    "FunctionArn": "function_arn",
    "InvocationType": "invocation_type",
    "HeaderName": "header_name",
    "HeaderValue": "header_value",
    "Encoding": "encoding",
    "InstanceARN": "instance_arn",
    "IAMRoleARN": "role_arn",
}
_READ: dict[str, type[Enum]] = {"Encoding": Encoding, "InvocationType": InvocationType}


class ActionShapeError(SendbackError, ValueError):
    """An action without exactly one type."""


def rule_from_shape(shape: Mapping[str, Any]) -> Rule:
    """Return a rule from a ReceiptRule, with defaults. Raise `ActionShapeError`."""
    return Rule(
        name=shape["Name"],
        enabled=shape.get("Enabled", False),
        tls_policy=TlsPolicy(shape.get("TlsPolicy", TlsPolicy.OPTIONAL)),
        recipients=tuple(shape.get("Recipients", ())),
        actions=tuple(action_from_shape(action) for action in shape.get("Actions", ())),
        scan_enabled=shape.get("ScanEnabled", False),
    )


def rule_to_shape(rule: Rule) -> dict[str, Any]:
    """Return the ReceiptRule, as in the response of DescribeReceiptRule.

    The live service omits Recipients when there are none, but not Actions.
    """
    recipients = {"Recipients": list(rule.recipients)} if rule.recipients else {}
    return {
        "Name": rule.name,
        "Enabled": rule.enabled,
        "TlsPolicy": rule.tls_policy.value,
        **recipients,
        "Actions": [action_to_shape(action) for action in rule.actions],
        "ScanEnabled": rule.scan_enabled,
    }


def action_from_shape(shape: Mapping[str, Any]) -> Action:
    """Return an action from a ReceiptAction. Raise `ActionShapeError`."""
    given = [name for name in ACTIONS if name in shape]
    if len(given) != 1:
        raise ActionShapeError("Exactly one action type must be specified for each ReceiptAction")
    kind, members = ACTIONS[given[0]], shape[given[0]]
    known = {field.name for field in fields(kind)}
    values: dict[str, Any] = {
        _MEMBERS[name]: _READ[name](value) if name in _READ else value
        for name, value in members.items()
        if _MEMBERS.get(name) in known
    }
    return kind(**values)


def action_to_shape(action: Action) -> dict[str, Any]:
    """Return the ReceiptAction; a stop action has the scope RuleSet."""
    name = next(name for name, kind in ACTIONS.items() if kind is type(action))
    known = {field.name for field in fields(action)}
    members = {
        member: value.value if isinstance(value, Enum) else value
        for member, field in _MEMBERS.items()
        if field in known and (value := getattr(action, field)) is not None
    }
    if isinstance(action, StopAction):
        members = {"Scope": "RuleSet", **members}
    return {name: members}


def rules_to_json(rules: Rules) -> str:
    """Return rules as JSON for the store; equal rules have equal texts."""
    shapes = [rule_to_shape(rule) for rule in rules]
    return json.dumps(shapes, separators=(",", ":"), ensure_ascii=False)


def rules_from_json(text: str) -> Rules:
    """Return the rules in a text from `rules_to_json`."""
    shapes: Sequence[Mapping[str, Any]] = json.loads(text)
    return tuple(rule_from_shape(shape) for shape in shapes)
