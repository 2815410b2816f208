"""What leaves `seem`: the network's parts as ONNX files, for a browser and for machines without torch, and masks as
files that other tools read.
"""

from seem.export.files import decoder_files, export_onnx

__all__ = ["decoder_files", "export_onnx"]
