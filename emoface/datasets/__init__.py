"""Reading of a finished data set: its manifest, photos, people, stream cache and predictions."""
