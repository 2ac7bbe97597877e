"""The one exception that is the user's to mend."""


class UserError(Exception):
    """Wrong use or wrong input.

    The message is one line that says which file, row, column or option is meant and what to do about
    it. A script prints it without a traceback and exits with code 2.
    """
