"""Imported by name when the process that workers are forked from starts: it loads what they will need."""

import vj.cluster.detection
import vj.cluster.tasks  # noqa: F401
from vj.cluster._warm import warm

warm()
