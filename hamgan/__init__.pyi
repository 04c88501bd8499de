from . import config as config
from . import convert as convert
from . import evaluation as evaluation
from . import hamburger as hamburger
from . import networks as networks
from . import sampling as sampling
from . import segmentation as segmentation
from .config import Config as Config
from .config import load_config as load_config
from .errors import ConfigError as ConfigError
from .evaluation import evaluate as evaluate
from .hamburger import Hamburger as Hamburger
from .networks import Discriminator as Discriminator
from .networks import Generator as Generator
from .networks import build_networks as build_networks
from .sampling import LoadedGenerator as LoadedGenerator
from .sampling import load_generator as load_generator
from .segmentation import load_segmenter as load_segmenter
from .sharing import push_to_hub as push_to_hub
from .sharing import save_pretrained as save_pretrained
from .training.loop import train as train

__version__: str
