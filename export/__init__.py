"""From a checkpoint to an ONNX file whose parity was measured."""
