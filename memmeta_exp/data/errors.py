"""The one error of this package."""


class DataError(ValueError):
    """Data that cannot be used: one line with what, why and the command that cures it."""
