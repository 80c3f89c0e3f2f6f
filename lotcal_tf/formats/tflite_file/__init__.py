"""The inside of a `.tflite` file: converter, tensors, operators, sparse encoding."""
