"""The one exception that is the user's to mend."""

_MOST, _END = 1000, 300  # characters of a message, and of its end, which says what to do


class UserError(Exception):
    """Wrong use or wrong input.

    The message is one line that says which file, row, column or option is meant and what to do about
    it. A script prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str):
        """Takes the message; characters that can't be printed, as a damaged file may hold, become spaces."""
        message = "".join(each if each.isprintable() else " " for each in message)
        if len(message) > _MOST:
            message = f"{message[: _MOST - _END]} ... {message[-_END:]}"
        super().__init__(message)
