"""vj: train, run and understand Viola-Jones cascades."""

import lazy_loader

# Names are resolved when first used: `import vj` costs milliseconds and `--help` never waits for the compiler.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
