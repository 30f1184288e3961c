"""The base class of the errors that Sendback raises."""


class SendbackError(Exception):
    """Base class of the errors that Sendback raises."""
