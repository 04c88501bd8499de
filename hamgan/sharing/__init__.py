"""Passing a trained generator on: a hub's repository with a model card, ONNX, torch.export."""

from hamgan.sharing.folder import publish, save_folder
from hamgan.sharing.formats import export_onnx, export_program
from hamgan.sharing.hub import download

__all__ = ["download", "export_onnx", "export_program", "publish", "save_folder"]
