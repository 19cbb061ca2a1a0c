"""A data set as later jobs read it: its manifest, photos, people, stream cache and predictions."""
