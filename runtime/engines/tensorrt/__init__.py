"""TensorRT plans on a GPU, the whole way of a chunk on it."""
