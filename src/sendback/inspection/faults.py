"""`/_sendback/faults`, and Mailpit's `/api/v1/chaos`: the server fails on purpose."""

from starlette.responses import Response

from sendback.faults.rules import FaultError
from sendback.inspection.answers import answer, empty
from sendback.inspection.calls import Call
from sendback.inspection.errors import ApiError, not_found
from sendback.inspection.services import InspectionServices
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError, NotFoundError


async def list_faults(_: Call, services: InspectionServices) -> Response:
    """List the faults with their counters, in the order in which they are tried."""
    faults = services.faults
    return answer({"faults": [faults.to_json(stored) for stored in await faults.list()]})


async def add_fault(call: Call, services: InspectionServices) -> Response:
    """Add a fault, with a name if it has none."""
    faults, given = services.faults, await call.json()
    try:
        stored = await faults.add(faults.from_json(given))
    except FaultError as error:
        raise _unusable(error) from None
    except AlreadyExistsError as error:
        raise ApiError(409, "AlreadyExists", str(error)) from None
    except LimitReachedError as error:
        raise _too_many(error) from None
    return answer(faults.to_json(stored), 201)


async def remove_fault(call: Call, services: InspectionServices) -> Response:
    """Remove a fault."""
    try:
        await services.faults.remove(call.path["name"])
    except NotFoundError as error:
        raise not_found(str(error)) from None
    return empty()


async def clear_faults(_: Call, services: InspectionServices) -> Response:
    """Remove all faults."""
    return answer({"deleted": await services.faults.clear()})


async def show_chaos(_: Call, services: InspectionServices) -> Response:
    """Return Mailpit's chaos triggers."""
    return answer(await services.faults.chaos())


async def set_chaos(call: Call, services: InspectionServices) -> Response:
    """Set Mailpit's chaos triggers, and return them as Mailpit does."""
    given = await call.json()
    try:
        await services.faults.set_chaos(given)
    except FaultError as error:
        raise _unusable(error) from None
    except LimitReachedError as error:
        raise _too_many(error) from None
    return answer(await services.faults.chaos())


def _unusable(error: FaultError) -> ApiError:
    """Return the error for a fault that cannot be used; its text names the member."""
    return ApiError(400, "InvalidParameter", str(error))


def _too_many(error: LimitReachedError) -> ApiError:
    return ApiError(409, "LimitReached", f"There may be at most {error.limit} faults.")
