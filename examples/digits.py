"""The handwritten digits that the digits_*.py programs here train on, and the table that they print."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import kernelwright as kw

TEST = 360  # a fifth of the 1797


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((images, labels) to train with, (images, labels) to test with); images: float32 [N, 8, 8] in 0..1.

    Which are which is drawn once and for all, by NumPy's generator from the seed 0.
    """
    with np.load(Path(__file__).parent / "data" / "digits.npz") as file:
        images, labels = file["images"].astype("float32") / 16, file["labels"].astype("int64")
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(images))
    train, test = order[TEST:], order[:TEST]
    return (images[train], labels[train]), (images[test], labels[test])


def cross_entropy(model, images, labels):
    """The loss of a classifier, and the share of digits that it gets right."""
    logits = model(images)
    right = kw.equal(kw.argmax(logits, 1), labels)
    return kw.cross_entropy(logits, labels), {"accuracy": kw.mean(right.astype("float32"))}


def show(title: str, history: list[dict[str, float]], wanted: float) -> None:
    """Print some epochs as a table, and whether the last one's test accuracy is what it should be."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in ("epoch", "loss", "accuracy", "test loss", "test accuracy", "seconds"):
        table.add_column(name, justify="right")
    every = max(1, len(history) // 10)
    for epoch, means in enumerate(history, 1):
        if epoch % every == 0 or epoch == len(history):
            table.add_row(
                str(epoch),
                f"{means['loss']:.4f}",
                f"{means['accuracy']:.2%}",
                f"{means['val_loss']:.4f}",
                f"{means['val_accuracy']:.2%}",
                f"{sum(h['seconds'] for h in history[:epoch]):.1f}",
            )
    console = Console()
    console.print(table)
    reached = history[-1]["val_accuracy"]
    console.print(f"test accuracy {reached:.2%}, wanted at least {wanted:.1%}")
    if reached < wanted:
        raise SystemExit(1)
