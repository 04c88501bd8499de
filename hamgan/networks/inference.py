"""Run a generator for sampling: the same images as in training, with fewer passes over weights and memory.

Weights are divided by their singular values once, the kernels that merge nearest up-sampling with a 3x3 convolution are
made once, elementwise operations work in place, and the shortcut is added at the smaller resolution.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.hamburger import Hamburger
from hamgan.hamburger.block import thin_product
from hamgan.networks.batch_norm import BatchNorm
from hamgan.networks.blocks import GeneratorBlock
from hamgan.networks.generator import START, Generator
from hamgan.networks.resampling import resampling_kernel, resampling_taps
from hamgan.networks.spectral_norm import SpectralConv2d, SpectralWeight

LARGEST_CHUNK = 4
"""Images per forward pass on a CPU. At 128 px it is as fast as 8 and 16 (widths 16 and 64, one core: 1.01 and 0.97 of
the images/s of 8), and a single image, which costs a whole chunk, is ready sooner."""
HEAP_BYTES = 2**25
"""The largest block that glibc keeps for reuse; larger ones cost a page fault per 4 KiB at every allocation."""


def fold_spectral_norm(network: Generator) -> Generator:
    """Replace every weight by its normalised value, in place; the images stay the same."""
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.fold()
    return network


class InferenceNorm(nn.Module):
    """Apply a batch norm in evaluation mode, in place. Shapes: x [B, C, H, W], condition of B rows."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, BatchNorm)
        self.norm = norm

    def factors(self, condition: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, [B, C, 1, 1] or [C, 1, 1], in the type of ``like`` [B, ...]."""
        pair = self.norm.merge(*self.norm.gain_and_bias(condition, None))
        scale, shift = (part[..., None, None].to(like.dtype) for part in pair)
        return scale, shift

    def forward(self, x: Tensor, condition: Tensor | None = None, weights: None = None) -> Tensor:
        """Return normalised x, in its own memory."""
        scale, shift = self.factors(condition, x)
        return torch.addcmul(shift, x, scale, out=x)


class InferenceBlock(nn.Module):
    """Apply a `GeneratorBlock` for sampling, over the memory of its input. Shapes: x [B, in, H, W] -> [B, out, 2H, 2W].

    ``after`` is an unconditional norm that follows the block and is folded into its weights.
    """

    kernel: Tensor
    second: Tensor
    second_bias: Tensor
    shortcut: Tensor

    def __init__(self, block: GeneratorBlock, after: BatchNorm | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = InferenceNorm(block.norm1), InferenceNorm(block.norm2)
        weight = block.conv1.weight
        self.register_buffer("kernel", resampling_kernel(weight, resampling_taps("up").to(weight), up=True))
        self.bias = block.conv1.bias
        second: Tensor = block.conv2.weight
        shortcut = block.shortcut.weight.flatten(1)
        assert block.conv2.bias is not None
        assert block.shortcut.bias is not None
        bias = block.conv2.bias + block.shortcut.bias
        if after is not None:
            scale, shift = after.merge(*after.gain_and_bias(None, None))
            second, shortcut = second * scale[:, None, None, None], shortcut * scale[:, None]
            bias = bias * scale + shift
        self.register_buffer("second", second)
        self.register_buffer("second_bias", bias.to(second.dtype))
        # Every pixel of the shortcut twice, as two adjacent columns of the output in memory, so that the sum runs over
        # whole rows (0.3 of its time at 128 px).
        self.register_buffer("shortcut", shortcut.repeat(2, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the block's output, channels last."""
        batch, _, height, width = x.shape
        shortcut = F.linear(x.permute(0, 2, 3, 1), self.shortcut)
        x = self.norm1(x, condition).relu_()
        scale, shift = self.norm2.factors(condition, x)
        y = F.conv_transpose2d(x, self.kernel, self.bias, stride=2, padding=1)
        y = torch.addcmul(shift, y, scale, out=y)
        y = F.conv2d(y.relu_(), self.second, self.second_bias, padding=1)
        y = y.contiguous(memory_format=torch.channels_last)  # no copy, unless a library returned another format
        y.permute(0, 2, 3, 1).view(batch, height, 2, width, -1).add_(shortcut[:, :, None])
        return y


class InferenceHamburger(nn.Module):
    """Apply a v1 `Hamburger` in the memory of its input [B, C, H, W], with norm and gate folded into a thin factor."""

    def __init__(self, block: Hamburger) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return ``x + gate * norm(bread(ham(bread(x))))``, in the memory of x."""
        block = self.block
        assert isinstance(block.norm, InferenceNorm)
        assert isinstance(block.upper_bread, SpectralConv2d)
        assert block.gate is not None
        _, tokens = block.latent_tokens(x)
        left, right = block.thin_factors(tokens, block.upper_bread.effective_weight().flatten(1), None)
        scale, shift = (block.gate.to(x.dtype) * part for part in block.norm.factors(condition, x))
        return thin_product(left, right * scale.flatten(-3)[..., None], like=x.add_(shift), add=True, overwrite=True)


class InferenceGenerator(nn.Module):
    """Run a folded `Generator`, whose weights it shares, without gradients. Shapes as `Generator.forward`."""

    def __init__(self, network: Generator) -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.network = copy.deepcopy(network, shared).eval()
        norm = self.network.output_norm
        inside = str(network.resolution) not in network.contexts  # nothing is between the last block and the norm
        self.output_norm = None if inside else InferenceNorm(norm)
        last = len(network.blocks) - 1
        blocks = [
            InferenceBlock(block, norm if inside and index == last else None)
            for index, block in enumerate(self.network.blocks)
            if isinstance(block, GeneratorBlock)
        ]
        self.network.blocks = nn.ModuleList(blocks)
        for size, context in list(self.network.contexts.items()):
            if isinstance(context, Hamburger) and context.norm is not None:
                context.norm = InferenceNorm(context.norm)
                if context.cheese is None:
                    self.network.contexts[size] = InferenceHamburger(context)

    @torch.no_grad()
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images [B, 3, R, R] in [-1, 1]."""
        count, network = z.shape[0], self.network
        first, conditions = network.conditions(z, labels)
        x = network.linear(first).view(count, -1, START, START).contiguous(memory_format=torch.channels_last)
        for block, condition in zip(network.blocks, conditions, strict=True):
            x = block(x, condition)
            size = str(x.shape[-1])
            if size in network.contexts:
                x = network.contexts[size](x, condition)
        conv: SpectralConv2d = network.output_conv
        x = x if self.output_norm is None else self.output_norm(x)
        return F.conv2d(x.relu_(), conv.weight, conv.bias, padding=1).tanh_()


def chunk_size(network: Generator) -> int:
    """Return the images per forward on a CPU core: up to 4, so that the largest feature map stays in reused memory."""
    largest = 4 * network.output_conv.weight.shape[1] * network.resolution**2
    chunk = LARGEST_CHUNK
    while chunk > 1 and chunk * largest > HEAP_BYTES:
        chunk //= 2
    return chunk
