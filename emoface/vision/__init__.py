"""Photos as arrays: boxes, crops, detections, who owns which face, augmentation; plain numpy and OpenCV."""
