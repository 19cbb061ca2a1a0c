"""Metrics of multi-label predictions and of detections; plain numpy."""
