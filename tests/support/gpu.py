"""The device of these tests, and who may run them: ``pytest -m cuda``, on a machine with a GPU."""

import pytest
import torch

DEVICE = torch.device("cuda")
ON_GPU = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
