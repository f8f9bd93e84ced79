"""Trained models at work: by lookup, as a service (http), as a file elsewhere (onnx, sql), and ranking items."""
