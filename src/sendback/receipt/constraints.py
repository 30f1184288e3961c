"""Validation of rules and their names, with the error texts of the live SES.

Violations of the model's constraints come from `aws.query`; these are the ones that the service
itself reports, one at a time, in the order in which it looks.
"""

import re
from collections import Counter
from collections.abc import Sequence

from sendback.aws.errors import SesError, shown
from sendback.mail.address import AddressError, parse_address, parse_domain
from sendback.receipt.model import (
    Action,
    AddHeaderAction,
    BounceAction,
    LambdaAction,
    Rule,
    S3Action,
    StopAction,
)

MAX_RULE_SETS = 40
MAX_RULES = 200
MAX_ACTIONS = 10
MAX_RECIPIENTS = 500  # SES documents 100 and accepts more
MAX_FILTERS = 100
MAX_HEADER_VALUE = 2048
_MAX_NAME = 64

_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[^\s:]{1,256}")
_FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]{1,140}(?::[$A-Za-z0-9_-]+)?"
)
_KMS_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:(?:key|alias)/[A-Za-z0-9/_-]{1,256}")
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}")
_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 §3.6.8: ftext
_NO_CONTROLS = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]*")
_REPLY_CODE = re.compile(r"[45]\d\d")
_STATUS_CODE = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")


def invalid(text: str) -> SesError:
    """Return InvalidParameterValue with a text of the live service."""
    return SesError("InvalidParameterValue", text)


def check_name(name: str, kind: str) -> None:
    """Raise `SesError` for an invalid name; its characters were checked before.

    `kind` is `ruleSetName`, `ruleName` or `filterName`.
    """
    if len(name) > _MAX_NAME or not (_alphanumeric(name[:1]) and _alphanumeric(name[-1:])):
        raise invalid(f"Not a valid {kind}: {shown(name)}")


def _alphanumeric(character: str) -> bool:
    return character.isascii() and character.isalnum()


def check_rule(rule: Rule) -> None:
    """Raise `SesError` for a rule that is invalid in itself, without lookups."""
    if len(rule.actions) > MAX_ACTIONS:
        raise SesError("LimitExceeded", "Too many actions")
    if len(rule.recipients) > MAX_RECIPIENTS:
        raise SesError("LimitExceeded", "Too many recipients")
    for recipient in rule.recipients:
        _check_recipient(recipient)
    for action in rule.actions:
        check_action(action)
    if any(isinstance(action, StopAction) for action in rule.actions[:-1]):
        raise invalid("Stop action, if any, must be placed at the end of the actions list")


def _check_recipient(text: str) -> None:
    """Raise `SesError` unless it is `user@example.com`, `example.com` or `.example.com`."""
    try:
        if "@" in text:
            parse_address(text, any_dots=True)
        else:
            parse_domain(text.removeprefix("."))
    except AddressError:
        raise invalid(f"Invalid recipient: {shown(text)}") from None


def check_action(action: Action) -> None:
    """Raise `SesError` for an action with an invalid member."""
    if isinstance(action, AddHeaderAction):
        _check_header(action)
    topic = action.topic_arn
    if topic is not None and not _TOPIC_ARN.fullmatch(topic):
        raise SesError("InvalidSnsTopic", f"Invalid SNS topic: {shown(topic)}", {"Topic": topic})
    match action:
        case S3Action():
            _check_bucket(action)
        case LambdaAction():
            _check_function(action.function_arn)
        case BounceAction():
            _check_bounce(action)
        case _:
            pass


def _check_header(action: AddHeaderAction) -> None:
    if not _HEADER_NAME.fullmatch(action.header_name):
        raise invalid(f"Invalid header name: {shown(action.header_name)}")
    value = action.header_value
    if len(value) > MAX_HEADER_VALUE or not _NO_CONTROLS.fullmatch(value):
        raise invalid(f"Invalid header value: {value[:100]}")


def _check_bucket(action: S3Action) -> None:
    if not action.bucket_name:
        raise invalid("Bucket name must not be empty")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", action.bucket_name):
        raise SesError(
            "InvalidS3Configuration",
            f"No such bucket: {shown(action.bucket_name)}",
            {"Bucket": action.bucket_name},
        )
    if not _NO_CONTROLS.fullmatch(action.object_key_prefix or ""):
        raise invalid("Invalid object key prefix: control characters are not allowed")
    key, role = action.kms_key_arn, action.iam_role_arn
    if key is not None and not _KMS_ARN.fullmatch(key):
        raise invalid(f"Invalid KMS encryption key ARN: {shown(key)}")
    if role is not None and not _ROLE_ARN.fullmatch(role):
        raise invalid(f"Invalid IAM role ARN: {shown(role)}")


def _check_function(arn: str) -> None:
    if not arn:
        raise invalid("Lambda function ARN must not be empty")
    if not _FUNCTION_ARN.fullmatch(arn):
        text = f"Invalid Lambda function: {shown(arn)}"
        raise SesError("InvalidLambdaFunction", text, {"FunctionArn": arn})


def _check_bounce(action: BounceAction) -> None:
    if not _REPLY_CODE.fullmatch(action.smtp_reply_code):
        raise invalid(f"Invalid SMTP reply code: {shown(action.smtp_reply_code)}")
    message = action.message
    if not message or not (message.isascii() and _NO_CONTROLS.fullmatch(message)):
        raise invalid(f"Invalid SMTP response message: {shown(message)}")
    if action.status_code and not _STATUS_CODE.fullmatch(action.status_code):
        raise invalid(f"Invalid SMTP status code: {shown(action.status_code)}")


def check_order(existing: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise `SesError` unless `wanted` is a permutation of `existing` (ReorderReceiptRuleSet)."""
    positions = Counter(wanted)
    for name in wanted:
        if positions[name] > 1:
            raise invalid(f"Multiple positions found for rule: {shown(name)}")
    missing = [name for name in existing if name not in positions]
    if missing:
        raise invalid(f"Positions for rules not found: {', '.join(missing)}")
    known = set(existing)
    for name in wanted:
        if name not in known:
            raise rule_does_not_exist(name)


def rule_set_does_not_exist(name: str) -> SesError:
    """Return RuleSetDoesNotExist (SES API)."""
    text = f"Rule set does not exist: {shown(name)}"
    return SesError("RuleSetDoesNotExist", text, {"Name": name})


def rule_does_not_exist(name: str) -> SesError:
    """Return RuleDoesNotExist (SES API)."""
    return SesError("RuleDoesNotExist", f"Rule does not exist: {shown(name)}", {"Name": name})


def already_exists(kind: str, name: str) -> SesError:
    """Return AlreadyExists (SES API); `kind` is `Rule set`, `Rule` or `Filter`."""
    return SesError("AlreadyExists", f"{kind} already exists: {shown(name)}", {"Name": name})
