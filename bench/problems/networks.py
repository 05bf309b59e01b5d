"""The matrix products inside well-known networks, one sequence or image at a time unless the name says
otherwise.

Weights of torch's `nn.Linear` and `nn.LSTM` are stored as [out, in] and used transposed, and so they are
here; GPT-2's own Conv1D stores [in, out]. Names end in m x n x k.
"""

from __future__ import annotations

from collections.abc import Iterable

from .problem import Problem, matmul

RESNET = "ResNet-50 (He et al. 2015), 1x1 convolutions in NHWC, 224x224 image"
BERT = "BERT-base (Devlin et al. 2018), 128 tokens"
GPT2 = "GPT-2 small (Radford et al. 2019)"
VGG = "VGG-16 (Simonyan and Zisserman 2014), fully connected layers"
ALEXNET = "AlexNet (Krizhevsky et al. 2012), fully connected layers"
LSTM = "LSTM, the product of the inputs of all 50 time steps with weight_ih [4H, I]"

# (stage, pixels, channels in, channels out); the stride sits in the 3x3 convolution.
_RESNET = (
    ("conv2", 56 * 56, 64, 64),
    ("conv2", 56 * 56, 64, 256),
    ("conv2", 56 * 56, 256, 64),
    ("conv3", 56 * 56, 256, 128),
    ("conv3", 28 * 28, 128, 512),
    ("conv3", 28 * 28, 512, 128),
    ("conv3-down", 28 * 28, 256, 512),
    ("conv4", 28 * 28, 512, 256),
    ("conv4", 14 * 14, 256, 1024),
    ("conv4", 14 * 14, 1024, 256),
    ("conv4-down", 14 * 14, 512, 1024),
    ("conv5", 14 * 14, 1024, 512),
    ("conv5", 7 * 7, 512, 2048),
    ("conv5", 7 * 7, 2048, 512),
    ("conv5-down", 7 * 7, 1024, 2048),
)


def _linear(network: str, layer: str, m: int, n: int, k: int, source: str, trans_b: bool = True) -> Problem:
    return matmul(
        f"{network}-{layer}-{m}x{n}x{k}", (m, k), (k, n), group=network, source=source, trans_b=trans_b
    )


def _resnet() -> Iterable[Problem]:
    for stage, pixels, c_in, c_out in _RESNET:
        yield _linear("resnet50", stage, pixels, c_out, c_in, RESNET, trans_b=False)
    yield _linear("resnet50", "fc", 1, 1000, 2048, RESNET)


def _bert() -> Iterable[Problem]:
    yield _linear("bert", "attention-out", 128, 768, 768, BERT)
    yield _linear("bert", "qkv", 128, 2304, 768, BERT)
    yield _linear("bert", "ffn-up", 128, 3072, 768, BERT)
    yield _linear("bert", "ffn-down", 128, 768, 3072, BERT)
    yield matmul(
        "bert-scores-12x128x128x64", (12, 128, 64), (12, 64, 128), group="bert", source=BERT, trans_b=True
    )
    yield matmul("bert-context-12x128x64x128", (12, 128, 128), (12, 128, 64), group="bert", source=BERT)


def _gpt2() -> Iterable[Problem]:
    for phase, tokens in (("prompt", 512), ("token", 1)):
        yield _linear("gpt2", f"{phase}-qkv", tokens, 2304, 768, GPT2, trans_b=False)
        yield _linear("gpt2", f"{phase}-proj", tokens, 768, 768, GPT2, trans_b=False)
        yield _linear("gpt2", f"{phase}-mlp-up", tokens, 3072, 768, GPT2, trans_b=False)
        yield _linear("gpt2", f"{phase}-mlp-down", tokens, 768, 3072, GPT2, trans_b=False)
    yield _linear("gpt2", "token-logits", 1, 50257, 768, GPT2)
    yield matmul(
        "gpt2-prompt-scores-12x512x512x64",
        (12, 512, 64),
        (12, 64, 512),
        group="gpt2",
        source=GPT2,
        trans_b=True,
    )
    yield matmul(
        "gpt2-prompt-context-12x512x64x512", (12, 512, 512), (12, 512, 64), group="gpt2", source=GPT2
    )


def _classifiers() -> Iterable[Problem]:
    for batch in (1, 16):
        yield _linear("alexnet", "fc6", batch, 4096, 9216, ALEXNET)
        yield _linear("alexnet", "fc7", batch, 4096, 4096, ALEXNET)
        yield _linear("alexnet", "fc8", batch, 1000, 4096, ALEXNET)
        yield _linear("vgg16", "fc6", batch, 4096, 25088, VGG)
        yield _linear("vgg16", "fc8", batch, 1000, 4096, VGG)


def _lstm() -> Iterable[Problem]:
    for hidden in (256, 512, 1024):
        for batch in (1, 16):
            yield _linear("lstm", f"h{hidden}-b{batch}", 50 * batch, 4 * hidden, hidden, LSTM)


def networks() -> Iterable[Problem]:
    """Layers of ResNet-50, BERT-base, GPT-2, AlexNet, VGG-16 and LSTM inputs as matrix products."""
    for part in (_resnet, _bert, _gpt2, _classifiers, _lstm):
        yield from part()
