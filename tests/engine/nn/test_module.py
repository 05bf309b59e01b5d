"""Modules: immutable trees, their names, and what training records."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine import nn, tree
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError


def ones(*shape: int) -> kw.Array:
    return kw.array(np.ones(shape, "f4"))


class Scale(nn.Module):
    def __init__(self, size: int, name: str = "scale") -> None:
        self.weight = ones(size)
        self.bias: Any = None
        self.name = name

    def __call__(self, x: Any) -> Any:
        return x


class Counter(nn.Module):
    buffers = ("count",)

    def __init__(self) -> None:
        self.count = kw.array(0.0, dtype="float32")
        self.weight = ones(2)

    def __call__(self, x: Any) -> Any:
        run = nn.current()
        if run is not None:
            run.record(self, count=kw.array(float(run.latest(self).count) + 1, dtype="float32"))
        return x


class Model(nn.Module):
    def __init__(self) -> None:
        self.layers = [Scale(2), Scale(3)]
        self.parts = {"first": Counter(), "shape": (1, 2)}
        self.act = np.tanh


def test_a_module_is_a_tree_of_its_arrays() -> None:
    model = Model()
    leaves, structure = tree.flatten(model)
    paths = ["model.layers[0].weight", "model.layers[1].weight", "model.parts['first'].count"]
    assert structure.paths("model") == [*paths, "model.parts['first'].weight"]
    assert list(nn.state_dict(model)) == [
        "layers.0.weight",
        "layers.1.weight",
        "parts.first.count",
        "parts.first.weight",
    ]
    assert structure.trainable() == [True, True, False, True]
    again = structure.unflatten(leaves)
    assert type(again) is Model
    assert again.layers[0].weight is model.layers[0].weight
    assert again.act is np.tanh
    assert again.parts["shape"] == (1, 2)
    assert tree.flatten(again)[1] == structure


def test_static_values_tell_structures_apart() -> None:
    def structure(**options: Any) -> tree.Structure:
        return tree.flatten(Scale(2, **options))[1]

    assert structure() == structure()
    assert hash(structure()) == hash(structure())
    assert structure(name="a") != structure(name="b")
    assert (
        structure(name="a").difference(structure(name="b"), "m")
        == "m.name is 'a' in one and 'b' in the other"
    )
    assert structure(name=1) != structure(name=1.0)
    assert structure(name=1) != structure(name=True)


def test_a_module_does_not_change() -> None:
    model = Model()
    with pytest.raises(ConfigError, match=r"model = model.replace\(act=...\)"):
        model.act = np.sin
    with pytest.raises(ConfigError, match="cannot be deleted"):
        del model.act
    assert isinstance(model.layers, tuple)
    with pytest.raises(TypeError):
        model.parts["first"] = None
    other = model.replace(act=np.sin)
    assert (other.act, model.act) == (np.sin, np.tanh)
    assert other.layers is model.layers
    with pytest.raises(ConfigError, match="Model has no 'acts'; it has layers, parts, act"):
        model.replace(acts=1)


def test_a_dataclass_can_be_a_module() -> None:
    @dataclass(eq=False)
    class Point(nn.Module):
        x: Any
        name: str = "p"

    leaves, structure = tree.flatten([Point(ones(1)), Point(ones(2), "q")])
    assert structure.paths() == ["[0].x", "[1].x"]
    assert structure.unflatten(leaves)[1].name == "q"


def test_a_base_class_may_set_attributes_first() -> None:
    class Child(Scale):
        def __init__(self) -> None:
            super().__init__(2)
            self.more = ones(1)

    assert list(nn.state_dict(Child())) == ["weight", "more"]


def test_what_cannot_be_static_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            self.inner = [bytearray(b"x")]

    with pytest.raises(DTypeError, match=r"Odd.inner\[0\] is a bytearray.*must be hashable"):
        tree.flatten([Odd()])


def test_modules_are_copied_and_pickled() -> None:
    model = Scale(2)
    tree.flatten(model)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert tree.flatten(other)[1] == tree.flatten(model)[1]
        with pytest.raises(ConfigError):
            other.name = "x"


def test_a_model_prints_its_parts() -> None:
    assert repr(Scale(2)) == "Scale(weight=f32[2], bias=None, name='scale')"
    assert "layers[1]=Scale(weight=f32[3]" in repr(Model())


def test_sequential_layers_are_numbered_and_functions_are_layers() -> None:
    model = nn.Sequential(Scale(2), np.tanh, Scale(3))
    assert list(nn.state_dict(model)) == ["0.weight", "2.weight"]
    assert tree.flatten(model)[1].paths("model") == ["model[0].weight", "model[2].weight"]
    assert model[1] is np.tanh
    assert len(model[1:]) == 2
    assert nn.Sequential(np.negative, np.tanh)(1.0) == -np.tanh(1.0)
    with pytest.raises(ConfigError, match="layers and functions, and 3 is none"):
        nn.Sequential(Scale(2), 3)  # type: ignore[arg-type]


def test_state_is_loaded_by_name() -> None:
    model = Model()
    state = {name: kw.array(np.full(a.shape, 7, "f4")) for name, a in nn.state_dict(model).items()}
    loaded = nn.load_state(model, state)
    assert loaded.layers[1].weight.tolist() == [7, 7, 7]
    assert model.layers[1].weight.tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match=r"lacks layers\.0\.weight"):
        nn.load_state(model, {k: v for k, v in state.items() if k != "layers.0.weight"})
    with pytest.raises(ShapeError, match=r"layers.0.weight has shape \(4,\)"):
        nn.load_state(model, {**state, "layers.0.weight": ones(4)})
    with pytest.raises(DTypeError, match=r"layers\.0\.weight is float64"):
        nn.load_state(model, {**state, "layers.0.weight": kw.array([1.0, 2.0])})


def test_training_records_and_the_model_stays() -> None:
    model = Model()
    assert nn.current() is None
    with nn.training() as run:
        assert nn.current() is run
        model.parts["first"](1)
        model.parts["first"](1)
    assert nn.current() is None
    after = run.updated(model)
    assert float(after.parts["first"].count) == 2
    assert float(model.parts["first"].count) == 0
    assert after.layers is model.layers
    assert run.updated({"m": [model], "x": 1})["m"][0].parts["first"].count.item() == 2
    _, counted = nn.stateful(model.parts["first"], 3)
    assert float(counted.count) == 1


def test_an_error_within_training_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), nn.training():
        raise ZeroDivisionError
    assert nn.current() is None


def test_a_model_is_parted_and_put_together() -> None:
    model = Model()
    params, rest = nn.partition(model)
    assert [p.shape for p in params] == [(2,), (3,), (2,)]
    assert len(tree.leaves(rest)) == 1
    assert tree.flatten(nn.combine(params, rest))[1] == tree.flatten(model)[1]
    leaves, structure = tree.flatten(rest)
    back = nn.combine(params, structure.unflatten(leaves))
    assert nn.state_dict(back).keys() == nn.state_dict(model).keys()


def test_a_layer_without_a_key_says_so() -> None:
    with pytest.raises(ConfigError, match=r"Linear draws its parameters: write key=kw.random.key\(0\)"):
        nn.Linear(2, 3)
