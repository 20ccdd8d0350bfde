"""trainflow: an ML training pipeline toolkit specialised in checkpoint/sample chaining."""

__version__ = "0.1.0"
