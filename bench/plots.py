"""Draw what the benchmarks recorded (`bench.results`) into docs/images: `python -m bench.plots`.

matplotlib is in the group `bench` of pyproject.toml; `make bench` installs it.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from bench.results import load

IMAGES = Path("docs/images")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    results = load()
    if "receive" in results:
        _receive(results["receive"])
    if "growth" in results:
        _growth(results["growth"])


def _receive(found: dict[str, dict[str, list[float]]]) -> None:
    figure, (rates, costs) = plt.subplots(1, 2, figsize=(11, 4))
    width = 0.8 / len(found)
    for number, (name, by_connections) in enumerate(found.items()):
        places = [n + number * width for n in range(len(by_connections))]
        rates.bar(places, [rate for rate, _ in by_connections.values()], width, label=name)
        costs.bar(places, [cost for _, cost in by_connections.values()], width)
    for axes, title in ((rates, "mails a second"), (costs, "CPU µs a mail")):
        counts = list(next(iter(found.values())))
        axes.set_xticks([n + 0.4 - width / 2 for n in range(len(counts))], counts)
        axes.set_xlabel("connections")
        axes.set_title(title)
    rates.legend(fontsize=7)
    _save(figure, "receiving.png")


def _growth(found: dict[str, dict[str, dict[str, float]]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, by_size in found.items():
        axes.plot(
            [int(size) for size in by_size],
            [figures["CPU us"] for figures in by_size.values()],
            marker="o",
            label=name,
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("stored messages")
    axes.set_title("CPU µs a received mail")
    axes.legend()
    _save(figure, "growth.png")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(IMAGES / name, dpi=110)
    print(f"  {IMAGES / name}")


if __name__ == "__main__":
    main()
