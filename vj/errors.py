"""The one exception for input that cannot be used, and the one warning."""


class InputError(ValueError):
    """Raised when something the caller supplied cannot be used.

    The message is one line and names what was expected and what came; the command line prints it as it is.
    """


class CacheWarning(UserWarning):
    """Says that compiled code cannot be kept where it usually is; nothing else is affected."""
