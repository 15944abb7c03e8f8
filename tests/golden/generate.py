"""Makes everything in this folder anew. See PROVENANCE.md.

    python tests/golden/generate.py                 # all
    python tests/golden/generate.py bases refused   # some
"""

import importlib
import sys

import torch
from transformers.utils import logging as notices

PARTS = ["bases", "family", "encoders", "refused", "quantised", "templates"]

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    notices.disable_progress_bar()
    notices.set_verbosity_error()
    for part in sys.argv[1:] or PARTS:
        importlib.import_module(part).make()
