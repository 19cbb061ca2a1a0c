"""Charts, drawn photos and HTML pages."""
