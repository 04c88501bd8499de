"""Pass a trained generator on: as a hub's repository with a model card, as ONNX, as a program of torch.export."""

from hamgan.sharing.folder import push_to_hub, save_pretrained
from hamgan.sharing.formats import export_onnx, export_program

__all__ = ["export_onnx", "export_program", "push_to_hub", "save_pretrained"]
