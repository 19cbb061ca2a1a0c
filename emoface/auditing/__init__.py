"""The numbers of the audit: one file per subject, each with the function that computes its part of ``audit.json``."""
