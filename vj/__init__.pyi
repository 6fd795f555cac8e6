from ._version import __version__ as __version__
from .cascade import Cascade as Cascade
from .detector import Detections as Detections
from .detector import Detector as Detector
from .errors import InputError as InputError
from .opencv_xml import load as load
from .opencv_xml import save as save
