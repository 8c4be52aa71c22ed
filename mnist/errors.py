"""Errors that the user can mend."""


class UserError(Exception):
    """What the script says in one line before it exits with status 2."""


def out_of_memory(error: MemoryError) -> UserError:
    """Returns what the script says when memory runs out."""
    return UserError(
        f'not enough memory, try a smaller --batchsize or --unit ({error})')


class DataError(UserError):
    """Digits that cannot be had; the message names the file and why."""


def one_line(error: Exception) -> str:
    """Returns what an error says, in one line."""
    return ' '.join(str(error).split())
