from .optimise import Inversion as Inversion
from .optimise import invert as invert
from .quality import Quality as Quality
from .quality import measure_quality as measure_quality
