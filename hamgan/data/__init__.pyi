from .loader import BatchLoader as BatchLoader
from .loader import image_order as image_order
from .opening import default_resolution as default_resolution
from .opening import open_source as open_source
from .opening import open_training as open_training
from .source import ImageSource as ImageSource
from .source import check_source as check_source
from .source import class_histogram as class_histogram
