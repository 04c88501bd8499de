from .folder import push_to_hub as push_to_hub
from .folder import save_pretrained as save_pretrained
from .formats import export_onnx as export_onnx
from .formats import export_program as export_program
