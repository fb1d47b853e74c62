"""What runs the windows of a network: torch, OpenVINO, ONNX Runtime or TensorRT behind one small interface."""
