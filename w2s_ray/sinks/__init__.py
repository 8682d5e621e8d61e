"""Copies of a study's numbers for TensorBoard, MLflow, Weights & Biases and Trackio."""
