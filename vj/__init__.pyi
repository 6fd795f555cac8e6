from vj._version import __version__ as __version__
from vj.cascade import Cascade as Cascade
from vj.detector import Detections as Detections
from vj.detector import Detector as Detector
from vj.errors import InputError as InputError
from vj.opencv_xml import load as load
from vj.opencv_xml import save as save
