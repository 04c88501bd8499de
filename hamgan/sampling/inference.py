"""The generator's evaluation forward in a form for sampling: the same images, fewer passes over weights and memory.

Against the form that is trained: weights are divided by their singular values once and for all; nearest up-sampling and
the 3x3 convolution behind it are one 2x2 convolution with four times the channels at the small size (4/9 of the
multiplications), whose kernel is made once; batch norm writes those four phases straight to their places; everything
elementwise happens in place; the shortcut is added at the small resolution.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.layers import BatchNorm, GeneratorBlock
from hamgan.networks import START, Generator
from hamgan.spectral import SpectralConv2d, SpectralWeight

LARGEST_CHUNK = 16
HEAP_BYTES = 2**25
"""The largest block that glibc keeps for reuse; larger ones cost a page fault per 4 KiB at every allocation."""

# Output row 2i + a of an up-sampled 3-tap convolution sees the input rows i - 1 + a and i + a; [phase, tap, weight].
_PHASE_TAPS = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1.0, 1, 0], [0, 0, 1]]])


def phase_kernel(weight: Tensor) -> Tensor:
    """The 2x2 kernel [4 * out, in, 2, 2] of a 3x3 one behind nearest 2x up-sampling, phase by phase (rows first)."""
    taps = _PHASE_TAPS.to(weight)
    kernel = torch.einsum("apy,bqx,oiyx->aboipq", taps, taps, weight)
    return kernel.reshape(-1, *kernel.shape[3:]).contiguous(memory_format=torch.channels_last)


def fold_spectral_norm(network: Generator) -> Generator:
    """Replace every normalised weight by its value, in place; the images stay the same."""
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.fold()
    return network


class InferenceNorm(nn.Module):
    """A batch norm in evaluation mode that works in place. Shapes: x [B, C, H, W], condition of B rows."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, BatchNorm)
        self.norm = norm

    def factors(self, condition: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, [B, C, 1, 1] or [C, 1, 1], in the type of ``like`` [B, ...]."""
        pair = self.norm.merge(*self.norm.gain_and_bias(condition))
        scale, shift = (part[..., None, None].to(like.dtype) for part in pair)
        return scale, shift

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Normalised x, in its own memory."""
        scale, shift = self.factors(condition, x)
        return torch.addcmul(shift, x, scale, out=x)


class InferenceBlock(nn.Module):
    """`GeneratorBlock` for sampling; overwrites its input. Shapes: x [B, in, H, W] -> [B, out, 2H, 2W]."""

    def __init__(self, block: GeneratorBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = InferenceNorm(block.norm1), InferenceNorm(block.norm2)
        self.conv2, self.shortcut = block.conv2, block.shortcut
        assert block.conv1.bias is not None
        self.channels = len(block.conv1.bias)
        self.register_buffer("kernel", phase_kernel(block.conv1.weight))
        self.register_buffer("kernel_bias", block.conv1.bias.repeat(4))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The block's output, channels last."""
        batch, _, height, width = x.shape
        shortcut = F.conv2d(x, self.shortcut.weight, self.shortcut.bias)
        x = self.norm1(x, condition).relu_()
        phases = F.conv2d(x, self.get_buffer("kernel"), self.get_buffer("kernel_bias"), padding=1)
        scale, shift = self.norm2.factors(condition, x)
        shape = (batch, self.channels, 2 * height, 2 * width)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for number, phase in enumerate(phases.split(self.channels, dim=1)):
            a, b = divmod(number, 2)
            torch.addcmul(shift, phase[:, :, a : a + height, b : b + width], scale, out=y[:, :, a::2, b::2])
        y = F.conv2d(y.relu_(), self.conv2.weight, self.conv2.bias, padding=1)
        cells = y.permute(0, 2, 3, 1).view(batch, height, 2, width, 2, self.channels)
        cells.add_(shortcut.permute(0, 2, 3, 1)[:, :, None, :, None])
        return y


class InferenceGenerator(nn.Module):
    """A folded `Generator` for sampling, without gradients; it shares the weights.

    Shapes as `Generator.forward`.
    """

    def __init__(self, network: Generator) -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.network = copy.deepcopy(network, shared).eval()
        blocks = [InferenceBlock(block) for block in self.network.blocks if isinstance(block, GeneratorBlock)]
        self.network.blocks = nn.ModuleList(blocks)
        for context in self.network.contexts.values():
            norm = getattr(context, "norm", None)
            if norm is not None:
                context.norm = InferenceNorm(norm)
        self.output_norm = InferenceNorm(self.network.output_norm)

    @torch.no_grad()
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1]."""
        count, network = z.shape[0], self.network
        first, conditions = network.conditions(z, labels)
        x = network.linear(first).view(count, -1, START, START).contiguous(memory_format=torch.channels_last)
        for block, condition in zip(network.blocks, conditions, strict=True):
            x = block(x, condition)
            size = str(x.shape[-1])
            if size in network.contexts:
                x = network.contexts[size](x, condition)
        conv: SpectralConv2d = network.output_conv
        x = self.output_norm(x).relu_()
        return F.conv2d(x, conv.weight, conv.bias, padding=1).tanh_()


def chunk_size(network: Generator) -> int:
    """Images per forward on a CPU core: a power of two up to 16 whose largest feature map stays in reused memory."""
    largest = 4 * network.output_conv.weight.shape[1] * network.resolution**2
    chunk = LARGEST_CHUNK
    while chunk > 1 and chunk * largest > HEAP_BYTES:
        chunk //= 2
    return chunk
