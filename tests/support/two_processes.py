"""Do a piece of work in two real processes of one group (gloo); they import it from here, not from a test."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from hamgan.config import NormConfig
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import (
    Processes,
    from_main,
    joined_processes,
    mean_over_processes_,
    rank,
    start_processes,
    world_size,
)
from hamgan.distributed.stop_signals import StopSignals
from hamgan.errors import Stopped
from hamgan.networks.batch_norm import BatchNorm
from hamgan.segmentation.losses import cross_entropy

ROWS = torch.arange(10).reshape(5, 2)


def in_two_processes(work: Callable[[], Any]) -> Callable[[Path], list[Any]]:
    """Return a function of a scratch folder that does the work in two processes and returns the result of each."""

    def start(folder: Path) -> list[Any]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        spawn(_join, (work, port, folder), nprocs=2)
        return [torch.load(folder / f"{index}.pt", weights_only=False) for index in range(2)]

    return start


def _join(index: int, work: Callable[[], Any], port: int, folder: Path) -> None:
    world = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in world.items()})
    torch.save(work(), folder / f"{index}.pt")
    if dist.is_initialized():
        dist.barrier()  # the first process keeps the store of the others
        dist.destroy_process_group()


def group_answers() -> dict[str, object]:
    """Return what every function of `hamgan.distributed.group` answers in this process."""
    device = start_processes()
    processes = Processes.current()
    total = torch.tensor([rank() + 1.0, 10.0], dtype=torch.float64)
    processes.sum_(total)
    share = processes.share(5)
    return {
        "world": (rank(), world_size(), processes.is_main),
        "share": list(share),
        "device": device,
        "from main": from_main({"best": Path(f"checkpoint of {rank()}")}),
        "mean": mean_over_processes_(torch.tensor([1.0, 3.0]) + rank()).tolist(),
        "sum": total.tolist(),
        "rows": processes.gather_rows(ROWS[share.start : share.stop], 5).tolist(),
        "any": [processes.any(rank() == 1), processes.any(False)],
    }


def signalled_steps() -> list[tuple[bool, bool]]:
    """Return the stop requests seen in each of four steps, the second process getting a signal in the second step."""
    start_processes()
    heard = []
    with StopSignals() as signals:
        for step in range(4):
            if (step, rank()) == (1, 1):
                signal.raise_signal(signal.SIGUSR1)
            heard.append(signals.poll(write_failed=step == 2 and rank() == 0))
    return heard


def failure_messages() -> dict[str, str]:
    """Return the messages of a failure of both processes, of which the second process's comes first."""
    start_processes()
    found = {}
    # Errors that all raise together come first: no message is left in the store by them.
    for name, error in (("raised by all", Stopped("asked to")), ("plain", RuntimeError("out of luck"))):
        try:
            with FailureWatch():
                if rank() == 0 and name == "plain":
                    time.sleep(1.0)
                raise error
        except Exception as caught:
            found[name] = f"{type(caught).__name__}: {caught}"
    return found


def failing_process() -> None:
    """Report a failure from the second process, which lives on, while the first one waits."""
    start_processes()
    with FailureWatch() as watch:
        if rank() == 1:
            watch._done.set()
            watch._report("process 1: RuntimeError: out of luck")
        time.sleep(60)


def ended_group() -> list[int]:
    """Return the number of processes inside and after a command that ends well."""
    with joined_processes(), FailureWatch():
        inside = world_size()
    return [inside, world_size()]


def failed_group() -> list[int]:
    """Return the number of processes inside and after a command that ends by an error."""
    with contextlib.suppress(Stopped), joined_processes(), FailureWatch():
        inside = world_size()
        raise Stopped("asked to")
    return [inside, world_size()]


def valid_loss_gradients() -> torch.Tensor:
    """Return the gradient of one of two images' logits in the loss that divides by the labelled pixels of both."""
    start_processes()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 8, 8, generator=generator)[[rank()]].requires_grad_()
    labels = torch.randint(0, 7, (2, 8, 8), generator=generator, dtype=torch.uint8)
    labels[0, :, :5] = 255
    cross_entropy(logits, labels[[rank()]], "valid").backward()
    assert logits.grad is not None
    return logits.grad


def norm_with_gradients(layer: BatchNorm, precision: torch.dtype, *, compiled: bool) -> dict[str, torch.Tensor]:
    """Return what one of two images becomes by a batch norm over both, its gradients and the running moments.

    ``kept`` counts the maps that the eager form keeps in another precision than the image's.
    """
    generator = torch.Generator().manual_seed(0)
    images, weights = (torch.randn(2, 3, 8, 8, generator=generator).to(precision) for _ in range(2))
    gain, bias = (torch.randn(2, 3, generator=generator)[[rank()]].requires_grad_() for _ in range(2))
    x = (images * 3 + 1)[[rank()]].requires_grad_()
    affine = torch.compile(layer.affine, backend="aot_eager", fullgraph=True) if compiled else layer.affine
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = affine(x, gain, bias)
    others = sum(tensor.numel() == x.numel() and tensor.dtype != precision for tensor in kept)
    (y * weights[[rank()]]).sum().backward()
    found = {"y": y, "x": x.grad, "gain": gain.grad, "bias": bias.grad, **dict(layer.named_buffers())}
    found["kept"] = torch.tensor(0 if compiled else others)
    return {name: value.detach() for name, value in found.items() if value is not None}


def compiled_norms() -> list[list[dict[str, torch.Tensor]]]:
    """Return the results of `norm_with_gradients`, eager and compiled, in float32 and in bfloat16."""
    start_processes()
    return [
        [norm_with_gradients(BatchNorm(3, NormConfig()), precision, compiled=compiled) for compiled in (False, True)]
        for precision in (torch.float32, torch.bfloat16)
    ]
