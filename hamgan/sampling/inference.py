"""The generator's evaluation forward in a form for sampling: the same images, fewer passes over weights and memory.

Against the form that is trained: weights are divided by their singular values once and for all; nearest up-sampling and
the 3x3 convolution behind it are 2x2 convolutions at the small size, one for each of the four phases of the output (4/9
of the multiplications), whose kernels are made once; batch norm writes those phases straight to their places;
everything elementwise happens in place; the shortcut is added at the small resolution.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.layers import BatchNorm, GeneratorBlock
from hamgan.networks import START, Generator
from hamgan.spectral import SpectralConv2d, SpectralWeight

LARGEST_CHUNK = 4
"""As fast as 8 and 16 at 128 px (widths 16 and 64, one core: 1.01 and 0.97 of the images/s of 8), and a single image,
which costs a whole chunk, is not left waiting for fifteen others."""
HEAP_BYTES = 2**25
"""The largest block that glibc keeps for reuse; larger ones cost a page fault per 4 KiB at every allocation."""
SMALL_MAP = 8
"""Up to this height every phase is a convolution of its own: all phases at once take a row and a column too many, 0.56
of the work of a 4x4 map (one core, width 64: 0.45 of the time at 4x4, 0.69 at 8x8, 1.0 at 16x16; width 16: 1.0)."""
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))

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
        scale, shift = self.norm2.factors(condition, x)
        shape = (batch, self.channels, 2 * height, 2 * width)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for (a, b), phase in zip(PHASES, self._up_sampled(x), strict=True):
            torch.addcmul(shift, phase, scale, out=y[:, :, a::2, b::2])
        y = F.conv2d(y.relu_(), self.conv2.weight, self.conv2.bias, padding=1)
        cells = y.permute(0, 2, 3, 1).view(batch, height, 2, width, 2, self.channels)
        cells.add_(shortcut.permute(0, 2, 3, 1)[:, :, None, :, None])
        return y

    def _up_sampled(self, x: Tensor) -> list[Tensor]:
        """The first convolution behind up-sampling, a map [B, out, H, W] per phase."""
        height, width = x.shape[2:]
        kernel, bias = self.get_buffer("kernel"), self.get_buffer("kernel_bias")
        if height > SMALL_MAP:
            phases = F.conv2d(x, kernel, bias, padding=1).split(self.channels, dim=1)
            return [phase[:, :, a : a + height, b : b + width] for (a, b), phase in zip(PHASES, phases, strict=True)]
        padded = F.pad(x, (1, 1, 1, 1))
        windows = [padded[:, :, a : a + height + 1, b : b + width + 1] for a, b in PHASES]
        parts = zip(windows, kernel.split(self.channels), bias.split(self.channels), strict=True)
        return [F.conv2d(*part) for part in parts]


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
    """Images per forward on a CPU core: a power of two up to 4 whose largest feature map stays in reused memory."""
    largest = 4 * network.output_conv.weight.shape[1] * network.resolution**2
    chunk = LARGEST_CHUNK
    while chunk > 1 and chunk * largest > HEAP_BYTES:
        chunk //= 2
    return chunk
