"""The configurations of every block that the tests go through."""

from itertools import product

INTERACTIONS = ("mlp", "affinity")
FUSIONS = ("sum", "concat", "depthwise", "grouped")
NORMS = ("batch", "none")
MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")

# Besides the defaults, through the whole contract.
VARIANTS = {
    "cpsam": [
        {"reduction": 2},
        # Each pair of values of two arguments appears.
        *(
            {"interaction": INTERACTIONS[(i + j) % 2], "fusion": FUSIONS[i], "norm": NORMS[j]}
            for i, j in product(range(4), range(2))
        ),
    ],
    "non_local": [
        {"reduction": 3},
        {"scaled": True},
        {"subsample": True},
        {"norm": "none"},
        {"mode": "gaussian"},
        {"mode": "gaussian", "scaled": True, "subsample": True},
        {"mode": "dot_product", "norm": "none"},
        {"mode": "concatenation"},
    ],
    "simplified_non_local": [],
    "global_context": [{"reduction": 2}],
    "squeeze_excite": [{"reduction": 2}],
    "cbam": [{"reduction": 2}, {"kernel_size": 3}],
    "eca": [{"kernel_size": 5}],
    "bam": [{"reduction": 2}, {"dilation": 1}],
    "danet_channel": [],
    "norm_only": [],
    "bare_fusion": [{"fusion": "sum"}, {"fusion": "sum", "norm": "none"}],
    "constant_gate": [{"fusion": "concat"}, {"fusion": "concat", "norm": "none"}],
    "conv_control": [{"hidden_channels": 5}, {"hidden_channels": 11}],
}

# Through the laws that need no compiler.
MORE = [
    *(
        ("non_local", {"mode": mode, "subsample": subsample, "norm": norm})
        for mode, subsample, norm in product(MODES, (False, True), ("batch", "none"))
    ),
    ("non_local", {"reduction": 3, "mode": "gaussian", "scaled": True}),
    *(
        ("bare_fusion", {"fusion": fusion, "norm": norm})
        for fusion, norm in product(("concat", "depthwise", "grouped"), ("batch", "none"))
    ),
    *(
        ("constant_gate", {"fusion": fusion, "norm": norm})
        for fusion, norm in product(("sum", "depthwise", "grouped"), ("batch", "none"))
    ),
    ("cpsam", {"reduction": 2, "interaction": "affinity", "fusion": "concat"}),
    ("eca", {"kernel_size": 1}),
    ("cbam", {"kernel_size": 1, "reduction": 24}),
]

# All of the above and the defaults.
CONFIGURATIONS = [
    *((name, {}) for name in VARIANTS if name != "conv_control"),
    *((name, arguments) for name, variants in VARIANTS.items() for arguments in variants),
    *MORE,
]


def label(value):
    return (
        ",".join(f"{key}={item}" for key, item in value.items()) or "default"
        if isinstance(value, dict)
        else str(value)
    )
