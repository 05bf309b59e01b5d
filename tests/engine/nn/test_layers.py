"""Every layer against torch.nn: from its state_dict come its results, its gradients and its new buffers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright import nn
from kernelwright.kernels.errors import ConfigError, ShapeError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")

KEY = 0
LAYERS: dict[str, tuple[Callable[[], Any], Callable[[], Any], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3, key=KEY), lambda: torch.nn.Linear(5, 3), (4, 5)),
    "linear_no_bias": (
        lambda: nn.Linear(5, 3, bias=False, key=KEY),
        lambda: torch.nn.Linear(5, 3, bias=False),
        (2, 4, 5),
    ),
    "conv1d": (
        lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2, key=KEY),
        lambda: torch.nn.Conv1d(4, 6, 3, 2, 1, groups=2),
        (2, 4, 9),
    ),
    "conv2d": (
        lambda: nn.Conv2d(3, 4, (3, 2), padding="same", dilation=2, key=KEY),
        lambda: torch.nn.Conv2d(3, 4, (3, 2), padding="same", dilation=2),
        (2, 3, 7, 6),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, key=KEY), lambda: torch.nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 5)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, key=KEY),
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
        (2, 4, 5, 6),
    ),
    "layer_norm": (lambda: nn.LayerNorm((3, 4)), lambda: torch.nn.LayerNorm((3, 4)), (5, 3, 4)),
    "layer_norm_plain": (
        lambda: nn.LayerNorm(6, elementwise_affine=False),
        lambda: torch.nn.LayerNorm(6, elementwise_affine=False),
        (5, 6),
    ),
    "rms_norm": (lambda: nn.RMSNorm(7), lambda: torch.nn.RMSNorm(7), (3, 7)),
    "group_norm": (lambda: nn.GroupNorm(2, 6), lambda: torch.nn.GroupNorm(2, 6), (3, 6, 4)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(4), lambda: torch.nn.BatchNorm1d(4), (6, 4)),
    "batch_norm2d": (
        lambda: nn.BatchNorm2d(3, momentum=0.3),
        lambda: torch.nn.BatchNorm2d(3, momentum=0.3),
        (4, 3, 2, 5),
    ),
    "max_pool2d": (lambda: nn.MaxPool2d(2, 1, 1), lambda: torch.nn.MaxPool2d(2, 1, 1), (2, 3, 5, 4)),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, 2, 1), lambda: torch.nn.AvgPool2d(3, 2, 1), (2, 3, 6, 5)),
    "adaptive_avg_pool2d": (
        lambda: nn.AdaptiveAvgPool2d((2, 3)),
        lambda: torch.nn.AdaptiveAvgPool2d((2, 3)),
        (2, 3, 5, 7),
    ),
    "flatten": (nn.Flatten, torch.nn.Flatten, (2, 3, 4)),
    "relu": (nn.ReLU, torch.nn.ReLU, (3, 5)),
    "gelu": (nn.GELU, torch.nn.GELU, (3, 5)),
    "gelu_tanh": (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), (3, 5)),
    "silu": (nn.SiLU, torch.nn.SiLU, (3, 5)),
    "tanh": (nn.Tanh, torch.nn.Tanh, (3, 5)),
    "sigmoid": (nn.Sigmoid, torch.nn.Sigmoid, (3, 5)),
    "leaky_relu": (lambda: nn.LeakyReLU(0.2), lambda: torch.nn.LeakyReLU(0.2), (3, 5)),
    "elu": (lambda: nn.ELU(0.7), lambda: torch.nn.ELU(0.7), (3, 5)),
    "softplus": (nn.Softplus, torch.nn.Softplus, (3, 5)),
    "hardswish": (nn.Hardswish, torch.nn.Hardswish, (3, 5)),
    "softmax": (nn.Softmax, lambda: torch.nn.Softmax(-1), (3, 5)),
    "log_softmax": (lambda: nn.LogSoftmax(0), lambda: torch.nn.LogSoftmax(0), (3, 5)),
    "sequential": (
        lambda: nn.Sequential(nn.Linear(4, 6, key=1), nn.ReLU(), nn.Linear(6, 2, key=2)),
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)),
        (3, 4),
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, key=KEY),
        lambda: torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True),
        (2, 5, 8),
    ),
    "transformer_norm_first": (
        lambda: nn.TransformerEncoderLayer(8, 4, 12, 0.0, "gelu", norm_first=True, key=KEY),
        lambda: torch.nn.TransformerEncoderLayer(8, 4, 12, 0.0, "gelu", norm_first=True),
        (5, 2, 8),
    ),
}


def pair(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
    """A layer, and PyTorch's with the same parameters, none of them at a special value."""
    torch.manual_seed(0)
    other = theirs()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return nn.from_torch_state_dict(ours(), other.state_dict()), other


def near(mine: Any, other: Any) -> None:
    other = other.detach().numpy()
    assert mine.shape == other.shape
    np.testing.assert_allclose(
        np.asarray(mine), other, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(other).max(initial=0))
    )


@pytest.mark.parametrize("name", LAYERS)
def test_results_and_gradients_are_those_of_pytorch(name: str) -> None:
    ours, theirs, shape = LAYERS[name]
    layer, other = pair(ours, theirs)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype("f4")
    near(layer(kw.array(x)), other.eval()(torch.tensor(x)))

    tx = torch.tensor(x, requires_grad=True)
    ty = other.train()(tx)
    weight = rng.standard_normal(tuple(ty.shape)).astype("f4")
    (ty * torch.tensor(weight)).sum().backward()

    def loss(layer: Any, x: Any) -> Any:
        y, layer = nn.stateful(layer, x)
        return (y * kw.array(weight)).sum(), (y, layer)

    arguments = (layer, kw.array(x))
    grads, (y, after) = kw.grad(loss, argnums=(0, 1), has_aux=True)(*arguments)
    near(y, ty)
    near(grads[1], tx.grad)
    wanted = {n: p.grad for n, p in other.named_parameters()}
    for path, g in nn.state_dict(grads[0]).items():
        if path in wanted:
            near(g, wanted[path])
    buffers = dict(other.named_buffers())
    for path, value in nn.state_dict(after).items():
        if path in buffers:
            near(value, buffers[path])


RECURRENT: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {"nonlinearity": "relu"}),
    "gru_two_layers": ("GRU", {"num_layers": 2, "bias": False}),
    "gru_two_ways": ("GRU", {"bidirectional": True, "batch_first": True}),
    "lstm": ("LSTM", {}),
    "lstm_two_layers_two_ways": ("LSTM", {"num_layers": 2, "bidirectional": True}),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
def test_recurrent_layers_are_those_of_pytorch(name: str, given: bool) -> None:
    kind, options = RECURRENT[name]
    layer, other = pair(
        lambda: getattr(nn, kind)(3, 4, **options, key=KEY), lambda: getattr(torch.nn, kind)(3, 4, **options)
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, 3)).astype("f4")
    batch = 5 if options.get("batch_first") else 2
    states = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    parts = [rng.standard_normal((states, batch, 4)).astype("f4") for _ in range(1 + (kind == "LSTM"))]
    state = [[f(part) for part in parts] for f in (kw.array, torch.tensor)]
    mine, theirs = ((tuple(s) if kind == "LSTM" else s[0]) if given else None for s in state)

    ty, tend = other(torch.tensor(x), theirs)
    y, end = layer(kw.array(x), mine)
    near(y, ty)
    for one, two in zip(end if kind == "LSTM" else [end], tend if kind == "LSTM" else [tend], strict=True):
        near(one, two)

    (ty.sum() + (tend[1] if kind == "LSTM" else tend).sum()).backward()

    def loss(layer: Any) -> Any:
        y, end = layer(kw.array(x), mine)
        return y.sum() + (end[1] if kind == "LSTM" else end).sum()

    grads = nn.state_dict(kw.grad(loss)(layer))
    for path, parameter in other.named_parameters():
        near(grads[path], parameter.grad)


def test_sequences_of_their_own_lengths() -> None:
    layer, other = pair(
        lambda: nn.LSTM(3, 4, bidirectional=True, key=KEY), lambda: torch.nn.LSTM(3, 4, bidirectional=True)
    )
    x, lengths = np.random.default_rng(0).standard_normal((6, 3, 3)).astype("f4"), [6, 4, 1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths)
    ty, (th, tc) = other(packed)
    y, (h, c) = layer(kw.array(x), lengths=np.array(lengths))
    near(y, torch.nn.utils.rnn.pad_packed_sequence(ty)[0])
    near(h, th)
    near(c, tc)


def test_embeddings_are_those_of_pytorch() -> None:
    layer, other = pair(
        lambda: nn.Embedding(7, 3, padding_idx=2, key=KEY), lambda: torch.nn.Embedding(7, 3, padding_idx=2)
    )
    where = np.array([[1, 2, 6], [6, 0, 2]])
    ty = other(torch.tensor(where))
    near(layer(kw.array(where)), ty)
    ty.sum().backward()
    near(kw.grad(lambda layer: layer(kw.array(where)).sum())(layer).weight, other.weight.grad)
    assert not np.asarray(nn.Embedding(7, 3, padding_idx=-1, key=KEY).weight)[6].any()


def test_attention_takes_pytorchs_masks() -> None:
    layer, other = pair(
        lambda: nn.MultiHeadAttention(6, 2, batch_first=True, key=KEY),
        lambda: torch.nn.MultiheadAttention(6, 2, batch_first=True),
    )
    rng = np.random.default_rng(0)
    query, key = (rng.standard_normal((2, n, 6)).astype("f4") for n in (3, 4))
    padding = np.array([[False, False, True, True], [False, False, False, True]])
    mask = np.array([[True, False, False, False], [False, True, False, False], [False, False, False, True]])
    for attn in (None, mask, rng.standard_normal((3, 4)).astype("f4")):
        for pad in (None, padding):
            mine = layer(
                kw.array(query),
                kw.array(key),
                None,
                *(None if m is None else kw.array(m) for m in (attn, pad)),
            )
            given = {"attn_mask": attn, "key_padding_mask": pad}
            given = {k: None if v is None else torch.tensor(v) for k, v in given.items()}
            theirs, _ = other(
                *(torch.tensor(part) for part in (query, key, key)), **given, need_weights=False
            )
            near(mine, theirs)


# What layers start with.


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda key: nn.Linear(400, 300, key=key), lambda: torch.nn.Linear(400, 300)),
        (lambda key: nn.Conv2d(32, 64, 3, groups=2, key=key), lambda: torch.nn.Conv2d(32, 64, 3, groups=2)),
        (lambda key: nn.ConvTranspose2d(32, 64, 3, key=key), lambda: torch.nn.ConvTranspose2d(32, 64, 3)),
        (lambda key: nn.LSTM(60, 80, 2, key=key), lambda: torch.nn.LSTM(60, 80, 2)),
        (lambda key: nn.Embedding(300, 100, key=key), lambda: torch.nn.Embedding(300, 100)),
        (lambda key: nn.MultiHeadAttention(128, 4, key=key), lambda: torch.nn.MultiheadAttention(128, 4)),
        (lambda key: nn.BatchNorm2d(8), lambda: torch.nn.BatchNorm2d(8)),
    ],
    ids=["linear", "conv", "conv_transpose", "lstm", "embedding", "attention", "batch_norm"],
)
def test_parameters_start_as_in_pytorch(ours: Callable[[Any], Any], theirs: Callable[[], Any]) -> None:
    """The same names and shapes; mean, deviation and bounds within what as many numbers allow."""
    torch.manual_seed(0)
    mine, other = nn.state_dict(ours(3)), theirs().state_dict()
    other.pop("num_batches_tracked", None)
    assert mine.keys() == other.keys()
    for name, array in mine.items():
        one, two = np.asarray(array), other[name].numpy()
        assert one.shape == two.shape, name
        deviation = float(two.std())
        spread = 5 * deviation / math.sqrt(one.size)
        assert float(one.mean()) == pytest.approx(float(two.mean()), abs=2 * spread + 1e-12), name
        assert float(one.std()) == pytest.approx(deviation, abs=2 * spread + 1e-12), name
        if "embedding" not in name and one.size > 5000 and one.max() < 2:
            assert float(np.abs(one).max()) == pytest.approx(float(np.abs(two).max()), rel=2e-3), name


def test_keys_decide_what_layers_start_with() -> None:
    def weight(key: Any) -> Any:
        return np.asarray(nn.Linear(3, 4, key=key).weight)

    np.testing.assert_array_equal(weight(5), weight(kw.random.key(5)))
    assert (weight(5) != weight(6)).any()
    assert (np.asarray(nn.Linear(4, 4, key=5).weight)[0] != np.asarray(nn.Linear(4, 4, key=5).bias)).all()


# Training.


def test_dropout_works_in_training_alone() -> None:
    drop, x = nn.Dropout(0.25), kw.array(np.ones((100, 200), "f4"))
    assert drop(x) is x
    with nn.training(kw.random.key(0)):
        one, two = np.asarray(drop(x)), np.asarray(drop(x))
    assert set(np.unique(one)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert (one == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert (one != two).any()
    with nn.training(kw.random.key(0)):
        np.testing.assert_array_equal(np.asarray(drop(x)), one)
    with nn.training(), pytest.raises(ConfigError, match="Dropout needs a key in training"):
        drop(x)


def test_dropout_between_recurrent_layers_is_drawn_anew() -> None:
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5, key=KEY)
    x = kw.array(np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4"))
    plain = np.asarray(layer(x)[0])
    np.testing.assert_array_equal(plain, np.asarray(layer(x)[0]))
    (one, _), _ = nn.stateful(layer, x, key=kw.random.key(0))
    (two, _), _ = nn.stateful(layer, x, key=kw.random.key(1))
    assert (np.asarray(one) != plain).any()
    assert (np.asarray(one) != np.asarray(two)).any()


def test_a_batch_norm_used_twice_moves_twice() -> None:
    layer, other = pair(lambda: nn.BatchNorm1d(3), lambda: torch.nn.BatchNorm1d(3))
    x = np.random.default_rng(0).standard_normal((4, 3)).astype("f4") + 3
    other(other(torch.tensor(x)) * 2)
    with nn.training() as run:
        layer(layer(kw.array(x)) * 2.0)
    after = run.updated(layer)
    near(after.running_mean, other.running_mean)
    near(after.running_var, other.running_var)
    assert after.weight is layer.weight


def test_a_training_step_compiles() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6, key=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 1, key=2)
    )
    # Not Adam: the first bias has no gradient but rounding, which Adam would make as large as any other.
    optimizer = kw.optim.sgd(1e-2, momentum=0.9)
    x = np.random.default_rng(0).standard_normal((16, 4)).astype("f4")

    def loss(model: Any, x: Any, key: Any) -> Any:
        with nn.training(key) as run:
            y = model(x)
        return ((y - 1.0) * (y - 1.0)).mean(), run.updated(model)

    def step(model: Any, state: Any, x: Any, key: Any) -> Any:
        (value, model), grads = kw.value_and_grad(loss, has_aux=True)(model, x, key)
        return (*optimizer.update(model, grads, state), value)

    compiled = kw.compile(step)
    fast, slow = [(model, optimizer.init(model))] * 2
    for number in range(3):
        key = kw.random.key(number)
        *fast, one = compiled(*fast, kw.array(x), key)
        *slow, two = step(*slow, kw.array(x), key)
        assert float(one) == pytest.approx(float(two), rel=1e-5)
    assert compiled.traces == 1
    for (name, one), two in zip(nn.state_dict(fast[0]).items(), nn.state_dict(slow[0]).values(), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(two), rtol=1e-4, atol=1e-5, err_msg=name)


# Bad input.


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: nn.Conv2d(3, 4, (3, 3, 3), key=KEY),
            "kernel_size is a whole number of 1 or more, or one for each of 2",
        ),
        (
            lambda: nn.Conv2d(3, 4, 3, groups=2, key=KEY),
            "groups must divide in_channels and out_channels, got 2 for 3",
        ),
        (lambda: nn.GroupNorm(4, 6), "4 groups do not divide 6 channels"),
        (lambda: nn.MultiHeadAttention(6, 4, key=KEY), "4 heads do not divide embed_dim 6"),
        (lambda: nn.Dropout(1.5), "p is a probability, got 1.5"),
        (lambda: nn.LSTM(3, 4, num_layers=0, key=KEY), "num_layers must be 1 or more"),
        (lambda: nn.Embedding(3, 4, padding_idx=3, key=KEY), "padding_idx must be a row of 3, got 3"),
        (lambda: nn.init.kaiming_uniform(KEY, (3, 4), nonlinearity="swish"), "'swish' has no gain"),
    ],
)
def test_layers_that_cannot_be_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=said):
        make()


def test_states_and_images_of_other_shapes_are_refused() -> None:
    x = kw.array(np.ones((5, 2, 3), "f4"))
    with pytest.raises(ShapeError, match=r"\[2, B, H\], one for each layer and direction, got \(1, 2, 4\)"):
        nn.GRU(3, 4, 2, key=KEY)(x, kw.array(np.ones((1, 2, 4), "f4")))
    with pytest.raises(ShapeError, match=r"the state is a pair \(h, c\)"):
        nn.LSTM(3, 4, key=KEY)(x, x)
    with pytest.raises(ShapeError, match="BatchNorm2d: x has 4 axes"):
        nn.BatchNorm2d(3)(x)
