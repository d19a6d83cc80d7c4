"""The peers are imported here once, so that what they warn of themselves is nobody's error."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmcv.cnn  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))
