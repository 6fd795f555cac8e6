from .calibration import Calibration as Calibration
from .calibration import Reliability as Reliability
from .calibration import brier_score as brier_score
from .calibration import expected_calibration_error as expected_calibration_error
from .calibration import reliability as reliability
<<<<<<< HEAD
=======
from .escalation import Escalation as Escalation
from .escalation import Outcome as Outcome
>>>>>>> main
from .model import Answer as Answer
from .model import Reply as Reply
from .model import Tier as Tier
from .model import TierError as TierError
<<<<<<< HEAD
from .speculative import Drafted as Drafted
from .speculative import Settled as Settled
from .speculative import Speculated as Speculated
from .speculative import SpeculativeTokens as SpeculativeTokens
from .speculative import collect as collect
from .speculative_corrections import Carry as Carry
from .speculative_corrections import Corrections as Corrections
from .speculative_frames import SpeculativeFrames as SpeculativeFrames
from .speculative_rules import TokenRule as TokenRule
=======
from .outcomes import Outcomes as Outcomes
from .policy import Policy as Policy
>>>>>>> main
