"""Classifiers in PyTorch, in the only package that imports it.

`load` reads the format of the shipped classifier, `load_hugging_face` a user's own model.

Importing it takes seconds: it is imported, and its functions called, off the event loop.
"""

from __future__ import annotations

import os

# Read once, when PyTorch brings the OpenMP runtime in. Its threads wait for each other by spinning for milliseconds; on
# cores that are shared with Envoy and the event loop the spinner keeps the very core that the others need. Spinning too
# shortly sends a thread to sleep between any two products, and waking it takes longer than the product does. This many
# rounds are enough for what lies between two products, and harmless on busy cores (docs/adr/0008).
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from router_extproc.inference.encoder.classifier import BertClassifier, load
from router_extproc.inference.encoder.hugging_face import HuggingFaceClassifier, load_hugging_face

__all__ = ["BertClassifier", "HuggingFaceClassifier", "load", "load_hugging_face"]
