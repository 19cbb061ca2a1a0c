"""The package's version, where every file can read it without importing the package's face."""

__version__ = "0.1.0"
