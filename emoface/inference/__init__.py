"""Detector and trained model together: faces of photos, and predictions for their people."""
