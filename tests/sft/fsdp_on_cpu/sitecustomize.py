"""For processes that a test launches: accelerate shards on the CPU too, and what it sharded is written down.

accelerate 1.15 takes its FSDP branch for devices of its list alone, and on a CPU falls back to plain DDP without a
word. Python imports this file at start-up where its folder is on PYTHONPATH.
"""

import json
import os
from pathlib import Path

from z1lib.sft import progress, train

if "RANK" in os.environ:
    import torch
    from accelerate import accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    torch.set_num_threads(1)
    plain_init, plain_prepare = AcceleratorState.__init__, accelerator.fsdp2_prepare_model

    def init_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        plain_init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":  # as in the branch that accelerate did not take
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    def prepare_and_tell(self, model):
        loaded = sum(float(parameter.detach().abs().sum()) for parameter in model.parameters())
        model = plain_prepare(self, model)
        policies = [module._get_fsdp_state()._mp_policy for module in model.modules() if isinstance(module, FSDPModule)]
        parameters = dict(model.named_parameters())
        told = {
            "is_fsdp_module": isinstance(model, FSDPModule),
            "sharded_layers": sum(isinstance(module, FSDPModule) for module in model.modules()),
            "all_dtensors": all(isinstance(parameter, DTensor) for parameter in parameters.values()),
            "local_share": sum(p.to_local().numel() for p in parameters.values())
            / sum(p.numel() for p in parameters.values()),
            "tied": model.config.tie_word_embeddings,
            "loaded": loaded,  # the sum of the weights that this process had before they were shared
            "computes_in": sorted({str(policy.param_dtype) for policy in policies}),
            "reduces_in": sorted({str(policy.reduce_dtype) for policy in policies}),
            "checkpointed": any("_checkpoint_wrapped_module" in name for name in parameters),
        }
        Path(os.environ["Z1_TOLD"], f"{os.environ['RANK']}.json").write_text(json.dumps(told))
        return model

    AcceleratorState.__init__ = init_with_fsdp
    accelerator.fsdp2_prepare_model = prepare_and_tell

    from trl import SFTTrainer

    from z1lib.sft import progress, train

    def kill(self, args, state, control, **kwargs):
        if state.global_step == int(os.environ["Z1_KILL_AT"]):
            os._exit(9)

    def synchronised(self, model):
        raise AssertionError("gradients of the whole model would be kept on every device")

    accelerator.Accelerator.no_sync = synchronised
    if os.environ.get("Z1_HEAD") == "trl":
        train.ResponseTrainer.compute_loss = SFTTrainer.compute_loss
    if "Z1_KILL_AT" in os.environ:
        progress.Progress.on_step_begin = kill
