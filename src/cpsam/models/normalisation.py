"""Finds how pixels must be scaled for pretrained weights, as the publisher of each file says."""

import re
from pathlib import Path

import timm
import torchvision
from timm.models import get_arch_name, get_pretrained_cfg

from cpsam.models.run_weights import Scaling, find_file, origin
from cpsam.models.state_choice import listed
from cpsam.models.weights import hash_weights


def published_scalings(name: str) -> dict[str, tuple[Scaling, str]]:
    """Returns the scaling that each published file of a network wants, and where the file is.

    The keys are the tags of the files; the default comes first.
    """
    library, _, rest = name.partition("/")
    if library == "torchvision":
        transforms = {
            weights.name: (weights.transforms(), weights.url)
            for weights in torchvision.models.get_model_weights(rest)
        }
        return {
            tag: ((tuple(scale.mean), tuple(scale.std)), url)
            for tag, (scale, url) in transforms.items()
        }
    if library == "timm" and timm.is_model(rest):
        architecture = get_arch_name(rest)
        default = get_pretrained_cfg(rest)
        named = timm.list_pretrained(f"{architecture}.*") if rest == architecture else []
        configs = [
            config for config in (default, *map(get_pretrained_cfg, named)) if config is not None
        ]
        return {
            config.tag or "": (
                (tuple(config.mean), tuple(config.std)),
                str(config.url or config.file or ""),
            )
            for config in configs
        }
    return {}


def normalisation(name: str, weights: Path | str | None = None) -> Scaling | None:
    """Returns the mean and standard deviation per channel of pixels in [0, 1] that pretrained
    weights of a network expect.

    Args:
        name: The network, as for :func:`cpsam.create_model`.
        weights: The file, or the folder of a run. It may tell more than the name of the network.

    Returns:
        None where no convention is known.
    """
    return expected_scaling(name, weights, sha256="" if weights is None else hash_weights(weights))[
        0
    ]


def expected_scaling(
    name: str, weights: Path | str | None, *, sha256: str
) -> tuple[Scaling | None, str]:
    """Returns the scaling of :func:`normalisation`, and in one line where it comes from.

    A ``config.json`` beside the file is believed first, then its SHA-256, in which the names of
    published files begin.
    """
    beside = origin(find_file(Path(weights))).scaling if weights is not None else None
    if beside is not None:
        return beside, f"pixels are scaled as config.json beside the weights says: {said(beside)}"
    published = published_scalings(name)
    if not published:
        return None, f"no other scaling is known for weights of {name}"
    for tag, (found, url) in published.items():
        digest = re.search(r"-([0-9a-f]{8,64})\.", url)
        if sha256 and digest and sha256.startswith(digest[1]):
            return found, f"pixels are scaled as {tag} of {name} says: {said(found)}"
    found, _ = next(iter(published.values()))
    others = [other for other, (scale, _) in published.items() if scale != found]
    doubt = f"; {listed(others)} of this network want another" if others else ""
    return found, f"pixels are scaled as published weights of {name} want: {said(found)}{doubt}"


def said(found: Scaling) -> str:
    """Returns a scaling as a person writes it.

    Example:
        >>> said(((0.485, 0.5), (0.229, 0.25)))
        'mean 0.485 0.5, standard deviation 0.229 0.25'
    """
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in found)
    return f"mean {mean}, standard deviation {std}"
