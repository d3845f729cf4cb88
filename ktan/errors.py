"""The one error that a user can do something about."""


class UserError(ValueError):
    """A mistake of the user's, said in one line that ends in what to change.

    Commands print it without a traceback and leave with exit code 2.
    """


class ProcessLost(UserError):
    """Another process of this training has ended: what is on disk is all there is."""
