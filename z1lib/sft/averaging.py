"""The mean of the weights over the last steps of a run: less noise between seeds than the last step alone."""

from pathlib import Path

import torch
from torch.optim.swa_utils import get_swa_multi_avg_fn
from transformers import TrainerCallback

FILE = "mean.pt"  # in a checkpoint
add_to_mean = get_swa_multi_avg_fn()  # of torch's AveragedModel, which would copy what LoRA leaves alone too


class MeanOfLast(TrainerCallback):
    """Keeps the mean of the trained weights over the last `share` of the steps, 0 to 1; at least of the last one.

    With a share of 0 it keeps nothing. The mean is held beside the weights, in their dtype and on their device.
    """

    def __init__(self, share: float):
        self.share, self.count, self.weights = share, 0, {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not self.share or state.global_step <= state.max_steps - max(1, round(self.share * state.max_steps)):
            return
        now = trained_weights(model)
        if self.count:
            add_to_mean(list(self.weights.values()), list(now.values()), self.count)
        else:
            self.weights = {name: weight.clone() for name, weight in now.items()}
        self.count += 1

    def save(self, folder: Path) -> None:
        if self.count:
            torch.save({"count": self.count, "weights": self.weights}, folder / FILE)

    def load(self, folder: Path, device: torch.device) -> None:
        """Go on from the mean of a checkpoint; one from before the last steps has none."""
        if (folder / FILE).exists():
            stored = torch.load(folder / FILE, map_location=device)
            self.count, self.weights = stored["count"], stored["weights"]

    def put_into(self, model: torch.nn.Module) -> None:
        """Give the model the mean of its weights, if there is one."""
        now = trained_weights(model)
        for name, mean in self.weights.items():
            now[name].copy_(mean)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
