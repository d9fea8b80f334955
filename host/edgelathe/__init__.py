"""edgelathe fits a trained model to a budget on the device it will run on."""

__version__ = "0.1.0"
