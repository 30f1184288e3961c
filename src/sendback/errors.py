"""The base classes of the errors that Sendback raises."""


class SendbackError(Exception):
    """Base class of the errors that Sendback raises."""


class InvalidInputError(SendbackError, ValueError):
    """What the user gave cannot be used as it is; `str` says why. The CLI exits with code 2."""
