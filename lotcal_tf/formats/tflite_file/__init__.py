"""What is inside a `.tflite` file: tensors, operators, sparse encoding."""
