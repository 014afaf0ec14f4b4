"""In each of several processes: save FOLDER MODE TOKENS, or load it under another distribution.

MODE is single, ddp, fsdp or hybrid (two copies, each split); `load` compares with what any rank
would have computed alone.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.distributed import Distribution, unwrap

torch.set_num_threads(1)
verb, folder, mode, tokens = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.output = nn.Linear(6, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.gain = nn.Parameter(torch.randn(1, 6))
        self.register_buffer("scale", torch.tensor(3.0))


kind = {"hybrid": {"type": "fsdp", "shards": 2}}.get(mode, {"type": mode})
settings = RuntimeSettings.model_validate({"device": "cpu", "distribution": kind})


def check(distribution: Distribution) -> None:
    expected = {name: tensor + tokens for name, tensor in Model().state_dict().items()}
    model = distribution.wrap(Model())
    state = unwrap(model).state_dict()
    moments = {f"exp_avg/{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    store = CheckpointStore(folder)
    if verb == "save":
        for name, tensor in unwrap(model).state_dict().items():
            if name != "output.weight":
                with torch.no_grad():
                    tensor.add_(tokens)
                    moments[f"exp_avg/{name}"].copy_(tensor)
        moments["exp_avg/output.weight"].copy_(moments["exp_avg/embedding.weight"])
        store.save(tokens, unwrap(model).state_dict(), moments, {"step": tokens})
    else:
        checkpoint = store.newest_valid()
        assert checkpoint is not None and checkpoint.position == tokens
        assert store.load(checkpoint, state, moments) == {"step": tokens}
        for name, tensor in [*unwrap(model).state_dict().items(), *moments.items()]:
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            assert torch.equal(whole, expected[name.removeprefix("exp_avg/")]), name
        for name, tensor in checkpoint.read_model().items():
            assert torch.equal(tensor, expected[name]), name


with Distribution.start(settings) as distribution:
    check(distribution)
