"""Model cascades: the cheap model first, a more expensive one where it pays."""

import lazy_loader

# As in the package itself: a name costs its import when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
