"""training.language_job over processes of a CPU, sharded by FSDP2 as accelerate shards GPUs alone.

A launcher runs it by path: tests are no package.
"""

import sys
from typing import Any

import accelerate.state
from accelerate.utils import DistributedType

from training.language_job import main

_init = accelerate.state.PartialState.__init__


def _init_as_if_on_gpus(self: Any, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    if self.__dict__.get("distributed_type") == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


accelerate.state.PartialState.__init__ = _init_as_if_on_gpus

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
