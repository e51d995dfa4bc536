"""An Envoy external processor for Mixture of Models: reads the prompt, picks the model, lets Envoy do the rest."""

__version__ = "0.1.0"
