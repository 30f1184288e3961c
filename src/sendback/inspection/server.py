"""`/_sendback/clock` and `/_sendback/reset`: what changes the whole server."""

from datetime import timedelta

from starlette.responses import Response

from sendback.config.readers import positive_duration
from sendback.inspection.answers import answer, empty
from sendback.inspection.calls import Call
from sendback.inspection.errors import ApiError, bad_parameter
from sendback.inspection.services import InspectionServices
from sendback.service.events import reports

# Dates end in the year 9999.
_LONGEST = timedelta(days=3650)


async def show_clock(_: Call, services: InspectionServices) -> Response:
    """Return the date of the server."""
    return answer({"now": services.control.now()})


async def advance_clock(call: Call, services: InspectionServices) -> Response:
    """Move the clock forward."""
    given = await call.body({"advance": str})
    _expect_test_server(services)
    if "advance" not in given:
        raise bad_parameter("advance", 'it is missing; {"advance": "25h"} moves the clock')
    try:
        by = positive_duration(given["advance"])
    except (ValueError, OverflowError) as error:
        raise bad_parameter("advance", str(error)) from None
    if by > _LONGEST:
        raise bad_parameter("advance", f"it must be at most {_LONGEST.days}d")
    try:
        await services.control.advance(by)
    except (ValueError, OverflowError) as error:
        raise bad_parameter("advance", str(error)) from None
    now = services.control.now()
    services.events.publish(reports.setting_changed(now, f"clock advanced by {given['advance']}"))
    return answer({"now": now})


async def reset(call: Call, services: InspectionServices) -> Response:
    """Make the server empty again."""
    await call.body({})
    _expect_test_server(services)
    await services.control.reset()
    services.events.publish(reports.setting_changed(services.control.now(), "reset"))
    return empty()


def _expect_test_server(services: InspectionServices) -> None:
    """Raise `ApiError` for a server of real mail, and for several workers.

    Each worker has a clock and queues of its own.
    """
    if services.control.by_mx:
        text = "The server delivers by MX: its clock and its mail are real."
        raise ApiError(409, "RealMail", text)
    if services.control.workers > 1:
        text = f"The server has {services.control.workers} workers; start it with --workers 1."
        raise ApiError(409, "SeveralWorkers", text)
