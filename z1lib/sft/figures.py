"""The picture of notebook 02: the loss."""

from itertools import cycle

from matplotlib.figure import Figure

from z1lib.plots import make_axes


def training_loss(logs: dict[str, list[dict]]) -> Figure:
    """Loss by step for every run."""
    figure, [axis] = make_axes()
    for (run, log), dashes in zip(logs.items(), cycle(["-", "--", "-.", ":"])):
        steps = [(row["step"], row["loss"]) for row in log if "loss" in row]
        axis.plot(*zip(*steps), label=run, linestyle=dashes)
    axis.set(xlabel="step", ylabel="loss on the response", yscale="log")
    axis.legend()
    return figure
