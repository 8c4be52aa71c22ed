"""Errors that the user can mend."""


class UserError(Exception):
    """What the script says in one line before it exits with status 2."""


class DataError(UserError):
    """Digits that cannot be had; the message names the file and why."""
