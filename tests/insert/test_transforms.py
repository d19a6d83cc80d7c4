"""Networks with trained attention inside go through compilers, exports, traces and distribution,
and compute the same.
"""

import pytest
import timm
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint_sequential
from torchvision.models import efficientnet_b0, mobilenet_v2, resnet18

from cpsam.insert import insert_attention
from cpsam.models.cifar_resnet import ThinResNet, cifar_resnet
from cpsam.testing import randomise

HOSTS = {
    "resnet8": (lambda: ThinResNet(1, 5), ("layer2", "layer3.0.bn2")),
    "timm/resnet10t": (
        lambda: timm.create_model("resnet10t", num_classes=5, zero_init_last=False),
        ("layer2", "layer3.0.bn2"),
    ),
    "mobilenet_v2": (lambda: mobilenet_v2(num_classes=5), ("features.3", "features.6.conv.3")),
    "efficientnet_b0": (lambda: efficientnet_b0(num_classes=5), ("features.2", "features.3.1")),
    "resnet18": (lambda: resnet18(num_classes=5), ("layer2.*", "layer3.0.downsample")),
}


BOTH = ("cpsam", "non_local")


def trained(name, blocks=BOTH):
    """A host with blocks at two places, all of them heard."""
    build, at = HOSTS[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        bare = model(x)
        for block in blocks:
            insert_attention(model, block, at=at)
        for module in model.modules():
            if hasattr(module, "attention"):
                randomise(module.attention)
        assert (model(x) - bare).abs().max() > 1e-3 * bare.abs().max()
    return model, x


@torch.no_grad()
def agree(model, other, *images):
    for x in images:
        expected = model(x)
        torch.testing.assert_close(
            other(x), expected, rtol=0, atol=1e-4 * expected.abs().max().item()
        )


OTHER = torch.randn(3, 3, 65, 40, generator=torch.Generator().manual_seed(1))


def test_compile_without_graph_breaks():
    model, x = trained("resnet8", ("cpsam",))
    torch.compiler.reset()
    agree(model, torch.compile(model, fullgraph=True, backend="aot_eager"), x, OTHER)


def test_compiled_gradients():
    model, x = trained("resnet8", blocks=("cpsam",))
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same_gradients(gradients_after(model, model, x), gradients_after(model, compiled, x))


@pytest.mark.parametrize("name, strict", [("resnet8", True), ("timm/resnet10t", False)])
def test_export_for_any_batch_and_image_size(name, strict):
    model, x = trained(name, ("cpsam",))
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        model, (x,), strict=strict, dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
    )
    agree(model, program.module(), x, OTHER, OTHER[:1])


@pytest.mark.usefixtures("one_onnx_registry")
def test_onnx_for_any_batch_and_image_size():
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = trained("resnet8", ("cpsam",))
    program = torch.onnx.export(
        model, (x,), dynamo=True, dynamic_shapes=({0: "n", 2: "h", 3: "w"},), verbose=False
    )
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    agree(
        model,
        lambda images: torch.from_numpy(session.run(None, {feed: images.numpy()})[0]),
        x,
        OTHER,
        OTHER[:1],
    )


@pytest.mark.parametrize("name", HOSTS)
def test_symbolic_trace(name):
    """Of places that tracing enters, and of leaves, which the traced network calls with their
    hooks.
    """
    model, x = (each.double() for each in trained(name))
    agree(model, torch.fx.symbolic_trace(model), x, OTHER.double())


@pytest.mark.parametrize("name", HOSTS)
def test_script(name):
    model, x = (each.double() for each in trained(name))
    agree(model, torch.jit.script(model), x, OTHER.double())


def test_scripted_models_save_and_load(tmp_path):
    model, x = trained("resnet8")
    torch.jit.save(torch.jit.script(model), tmp_path / "model.pt")
    agree(model, torch.jit.load(tmp_path / "model.pt"), x, OTHER)


def gradients_after(model, run, x):
    model.zero_grad()
    run(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_gradients(one, other):
    assert one.keys() == other.keys() and any(".attention." in name for name in one)
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_of_timm():
    model, x = trained("timm/resnet10t")
    plain = gradients_after(model, model, x)
    model.set_grad_checkpointing()
    assert_same_gradients(plain, gradients_after(model, model, x))


def test_gradient_checkpointing_of_torch():
    torch.manual_seed(0)
    model, x = cifar_resnet("resnet20", 5).eval(), torch.randn(2, 3, 12, 20)
    insert_attention(model, "cpsam", at="layer3.*")
    for block in model.layer3:
        randomise(block.attention)

    def checkpointed(images):
        y = model.layer2(model.layer1(model.relu(model.bn1(model.conv1(images)))))
        return model.fc(checkpoint_sequential(model.layer3, 3, y, use_reentrant=False).mean((2, 3)))

    assert_same_gradients(gradients_after(model, model, x), gradients_after(model, checkpointed, x))


@pytest.fixture
def one_process():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(one_process):
    model, x = trained("resnet8")
    plain = gradients_after(model, model, x)
    wrapped = DistributedDataParallel(model)
    assert_same_gradients(plain, gradients_after(model, wrapped, x))
    agree(model, wrapped, x, OTHER)


def test_data_parallel_and_ema_copies():
    model, x = trained("resnet8")
    average = torch.optim.swa_utils.AveragedModel(model)
    agree(model, average, x)
    agree(model, timm.utils.ModelEmaV3(model).module, x)


def test_features_of_timm_see_what_comes_after_attention():
    model, x = trained("timm/resnet10t")
    with torch.no_grad():
        features = model.forward_intermediates(x, intermediates_only=True)
    seen = []
    handle = model.layer2.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(x)
    handle.remove()
    assert torch.equal(features[2], seen[0])


def test_autocast_and_half():
    model, x = trained("resnet8")
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(x)
        half = model.bfloat16()(x.bfloat16())
    for other in (low, half):
        assert (other.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_module_list_host_compiles_with_attention_in_each_layer():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(c, 6, 3, padding=1) for c in (3, 6, 6))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x).relu()
            return x

    model, x = Loop().eval(), torch.randn(2, 3, 9, 14)
    assert insert_attention(model, "cpsam", at="layers.*") == ["layers.0", "layers.1", "layers.2"]
    for layer in model.layers:
        randomise(layer.attention)
    torch.compiler.reset()
    agree(model, torch.compile(model, fullgraph=True, backend="eager"), x)
    agree(model, torch.jit.script(model), x)
