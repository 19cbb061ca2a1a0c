"""emoface: build EMOTIC_Face from raw EMOTIC, audit its label balance, train and evaluate MTER."""

__version__ = "0.1.0"
