"""unalike: teach a computer to tell look-alikes apart."""

__version__ = "0.1.0"
