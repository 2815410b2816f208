"""The network's parts as ONNX files, for a browser and for machines without torch."""
