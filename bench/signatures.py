"""Whether checking a signature tells how much of it is right.

Method (as dudect's: measure, crop, test for a difference). A signed request is verified with
signatures that are right up to one digit, at a position drawn at random each time, so that drift
and load fall on all positions alike. The slowest tenth is cropped: those were interrupted. Then the
slope of time over position is estimated, and its t value: a comparison that stops at the first
wrong digit takes longer the later that is. |t| under 4.5 is dudect's bound for "no leak found". The
control is the same code with a comparison that stops early: the method must find that one.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from bench.common import bounce_form
from sendback.aws.errors import SesError
from sendback.aws.sigv4 import Credentials, SignedRequest, read_credentials, verify

SAMPLES = 60_000
BOUND = 4.5
_DIGITS = 64


def main() -> None:
    print(f"signature comparison: time over the position of the first wrong digit, {SAMPLES} calls")
    request, credentials = _signed()
    ours = _slope(request, credentials)
    with mock.patch("sendback.aws.sigv4.hmac.compare_digest", _stops_early):
        control = _slope(request, credentials)
    for name, (slope, t) in (("ours", ours), ("control, stops at the first", control)):
        verdict = "a leak" if abs(t) > BOUND else "no leak found"
        print(f"  {name:28} {slope:+8.3f} ns a digit, t = {t:+7.2f}: {verdict}")


def _stops_early(left: bytes, right: bytes) -> bool:
    return all(a == b for a, b in zip(left, right, strict=True))


def _slope(request: SignedRequest, credentials: Credentials) -> tuple[float, float]:
    """(nanoseconds a digit, t value)."""
    now = datetime.now(UTC)
    wrong = [_wrong_at(credentials, position) for position in range(_DIGITS)]
    for position in range(_DIGITS):  # warm
        _time(lambda p=position: verify(request, wrong[p], "test", "us-east-1", now))
    samples: list[tuple[int, int]] = []
    for _ in range(SAMPLES):
        position = random.randrange(_DIGITS)
        claimed = wrong[position]
        taken = _time(lambda c=claimed: verify(request, c, "test", "us-east-1", now))
        samples.append((position, taken))
    limit = statistics.quantiles([taken for _, taken in samples], n=10)[-1]
    kept = [(position, taken) for position, taken in samples if taken <= limit]
    return _regression(kept)


def _time(call: Callable[[], None]) -> int:
    start = time.perf_counter_ns()
    try:
        call()
    except SesError:
        return time.perf_counter_ns() - start
    raise SystemExit("a wrong signature was taken")


def _regression(points: list[tuple[int, int]]) -> tuple[float, float]:
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    slope, intercept = statistics.linear_regression(xs, ys)
    mean = statistics.fmean(xs)
    spread = sum((x - mean) ** 2 for x in xs)
    residuals = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    error = (residuals / (len(xs) - 2) / spread) ** 0.5
    return slope, slope / error


def _signed() -> tuple[SignedRequest, Credentials]:
    body = bounce_form("x" * 40)
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    signed = AWSRequest("POST", "http://127.0.0.1:4579/", headers=headers, data=body)
    SigV4Auth(BotoCredentials("test", "test"), "ses", "us-east-1").add_auth(signed)
    given = {name.lower(): value for name, value in signed.headers.items()}
    request = SignedRequest(
        "POST", "/", [], {**given, "host": "127.0.0.1:4579"}, body.encode("ascii")
    )
    credentials = read_credentials(request)
    verify(request, credentials, "test", "us-east-1", datetime.now(UTC))
    return request, credentials


def _wrong_at(credentials: Credentials, position: int) -> Credentials:
    """Right before the position, wrong from there on."""
    right = credentials.signature
    digit = "0" if right[position] != "0" else "1"
    rest = "".join("0" if d != "0" else "1" for d in right[position + 1 :])
    return replace(credentials, signature=right[:position] + digit + rest)


if __name__ == "__main__":
    main()
