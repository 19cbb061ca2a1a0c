"""Photos as arrays: boxes, crops, detections, assignment of faces to people, augmentation; only numpy and OpenCV."""
