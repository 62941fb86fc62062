"""Export chargen's character models to ONNX: `pipeline` has the path, `cli` the command."""
