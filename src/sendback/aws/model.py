"""botocore's `ses/2010-12-01` service model: the contract for every request and response.

Reads the model that the installed botocore ships; this is package data, read once.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.model import OperationModel, ServiceModel

API_VERSION = "2010-12-01"


@cache
def service_model() -> "ServiceModel":
    """Return the service model; its shapes are resolved lazily."""
    from botocore.loaders import Loader  # noqa: PLC0415 - 0.1 s, and most commands need no model
    from botocore.model import ServiceModel  # noqa: PLC0415

    return ServiceModel(Loader().load_service_model("ses", "service-2", API_VERSION), "ses")


@cache
def operation_names() -> frozenset[str]:
    """Return the names of all operations of the model."""
    return frozenset(service_model().operation_names)


@cache
def operation_model(name: str) -> "OperationModel":
    """Return the model of an operation; `name` must be in `operation_names()`."""
    return service_model().operation_model(name)
