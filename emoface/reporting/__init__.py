"""What people look at: charts, annotated photos, CSV text and self-contained HTML pages."""
