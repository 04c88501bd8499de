"""Build the Hamburger block: two 1x1 convolutions around a decomposition, with a shortcut; versions v1, v2 and v2+."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger.autograd import fork, rectify_
from hamgan.hamburger.decompositions import state_dtype
from hamgan.hamburger.ham import Ham
from hamgan.hamburger.precision import without_autocast

Bases = Tensor | tuple[Tensor, Tensor]
"""Initial bases [B*S, D, R] of a block; in dual mode the pair (spatial, channel)."""


class Hamburger(nn.Module):
    """Add global context by matrix decomposition (Geng et al. 2021): ``x + gate * bread(ham(bread(x)))``.

    ``conv(in, out)`` builds a 1x1 convolution without bias; its weight is read once per forward: from ``weights`` where
    it is among them, through ``effective_weight()`` where the module has one (spectral norm). ``lower_conv`` takes its
    place in front of the decomposition and may have a bias (the official segmentation code). ``norm(channels)`` builds
    what stands behind the upper bread (v1) or inside the cheese (v2, v2+), called as ``norm(y, condition, weights)``
    when a condition is given.
    ``gate`` multiplies the branch by a learnt scalar that starts at 0; v2+ also learns the shortcut's factor.
    ``final_relu``: the output goes through ReLU. ``positions`` (height x width) is needed for persistent bases in
    channel or dual mode only. Raises ConfigError when channels do not divide.

    ``conv(in, out)`` builds a 1x1 convolution without bias. Its weight is read once per forward pass: from ``weights``
    if that has the module, else by ``effective_weight()`` if the module has this method (spectral norm). ``lower_conv``
    builds the lower bread instead and may have a bias (the official segmentation code). ``norm(channels)`` builds the
    norm after the upper bread (v1) or inside the cheese (v2, v2+), called as ``norm(y, condition, weights)`` if there
    is a condition. ``gate`` multiplies the branch by a learnt scalar that starts at 0; v2+ also learns a factor on the
    shortcut. ``final_relu`` applies ReLU to the output. ``positions`` (height x width) is needed only for persistent
    bases in channel or dual mode. Raises ConfigError if the channels are not divisible.

    The reconstruction is a product of two thin factors, so the upper convolution is applied to the bases (spatial mode)
    or the coefficients (channel mode): N R C multiplications instead of N D C.
    """

    def __init__(
        self,
        channels: int,
        config: HamburgerConfig,
        conv: Callable[[int, int], nn.Module],
        norm: Callable[[int], nn.Module] | None = None,
        *,
        gate: bool = True,
        final_relu: bool = False,
        lower_conv: Callable[[int, int], nn.Module] | None = None,
        positions: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.final_relu = final_relu
        self.head_dim = _head_dim(channels, config)
        half = config.heads * self.head_dim
        latent = half * (2 if config.dual else 1)
        self.lower_bread = (lower_conv or conv)(channels, latent)
        spatial = config.dual or config.mode == "spatial"
        self.ham = Ham(config, self.head_dim if spatial else positions)
        self.channel_ham = Ham(config, positions) if config.dual else None
        self.cheese: nn.Module | None = None
        if config.version != "v1":
            cheese = _cheese_dim(latent, config)
            self.cheese = conv(latent, cheese)
            latent = cheese
        self.upper_bread = conv(latent, channels)
        self.norm = norm(channels if self.cheese is None else latent) if norm else None
        self.gate = nn.Parameter(torch.zeros(())) if gate else None
        self.shortcut = nn.Parameter(torch.ones(())) if config.version == "v2+" else None

    def draw_bases(
        self,
        batch: int,
        height: int,
        width: int,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Bases:
        """Draw initial bases for `forward`: [B*S, D, R], or in dual mode a pair (spatial, channel) of them.

        D is the channels per head, or height x width in channel mode.
        """
        spatial = self.channel_ham is not None or self.config.mode == "spatial"
        features = self.head_dim if spatial else height * width
        bases = self.ham.draw_bases(batch, features, device, generator)
        if self.channel_ham is None:
            return bases
        return bases, self.channel_ham.draw_bases(batch, height * width, device, generator)

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        bases: Bases | None = None,
        weights: Mapping[nn.Module, Tensor] | None = None,
    ) -> Tensor:
        """Return [B, C, H, W] in the memory format of x [B, C, H, W]; ``bases`` as from `draw_bases`, None draws."""
        x, tokens = self.latent_tokens(x, weights)
        first = self.upper_bread if self.cheese is None else self.cheese
        with without_autocast(x.device):
            left, right = self.thin_factors(tokens, _weight(first, weights).flatten(1), bases)
        if self.cheese is None and self.norm is None:
            return self._finish(x, left, right)
        y = thin_product(left, right, like=x)
        if self.norm is not None:
            y = self.norm(y) if condition is None else self.norm(y, condition, weights)
        if self.cheese is None:
            return self._add(x, y)
        tokens = F.relu(y).flatten(2).mT
        return self._finish(x, tokens, _weight(self.upper_bread, weights).flatten(1).expand(x.shape[0], -1, -1))

    def latent_tokens(self, x: Tensor, weights: Mapping[nn.Module, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return x, and the lower bread's output as tokens [B, N, L], in float32 or wider and non-negative for NMF.

        A channels-last map is a matrix of rows, so both gradients of x can be added by `fork`.
        """
        weight, bias = _weight(self.lower_bread, weights), getattr(self.lower_bread, "bias", None)
        as_rows = bias is None and x.is_contiguous(memory_format=torch.channels_last) and x.dtype == _matmul_dtype(x)
        if as_rows:
            with without_autocast(x.device):
                rows = x.permute(0, 2, 3, 1)
                same, latent = fork(rows.flatten(0, 2), weight.flatten(1).to(x.dtype))
                x = same.view(rows.shape).permute(0, 3, 1, 2)
        else:
            latent = F.conv2d(x, weight, bias)
        latent = latent.to(state_dtype(latent.dtype))
        if self.config.decomposition == "nmf":
            latent = rectify_(latent) if self.config.gradient == "one_step" else F.relu(latent)
        return x, latent.unflatten(0, (x.shape[0], -1)) if as_rows else latent.flatten(2).mT

    def thin_factors(self, tokens: Tensor, weight: Tensor, bases: Bases | None) -> tuple[Tensor, Tensor]:
        """Return factors left [B, N, R'], right [B, C', R'] of the reconstruction times ``weight`` [C', latent]."""
        weight = weight.to(tokens.dtype)
        if self.channel_ham is None:
            if isinstance(bases, tuple):
                raise ConfigError("a pair of bases is for dual mode; this block takes one tensor [B*S, D, R]")
            part = self._spatial if self.config.mode == "spatial" else self._channel
            return part(self.ham, tokens, weight, bases)
        if bases is not None and not isinstance(bases, tuple):
            raise ConfigError("dual mode takes a pair of bases (spatial, channel), as draw_bases makes them")
        first, second = bases or (None, None)
        half = tokens.shape[-1] // 2  # slices: autograd forbids writing into the views of chunk
        parts = (
            self._spatial(self.ham, tokens[..., :half], weight[:, :half], first),
            self._channel(self.channel_ham, tokens[..., half:], weight[:, half:], second),
        )
        left, right = zip(*parts, strict=True)
        return torch.cat(left, dim=-1), torch.cat(right, dim=-1)

    def _spatial(self, ham: Ham, tokens: Tensor, weight: Tensor, bases: Tensor | None) -> tuple[Tensor, Tensor]:
        heads = self.config.heads
        split = tokens.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
        coefficients, bases = ham(split, bases)
        folded = weight.unflatten(-1, (heads, -1)).transpose(0, 1) @ bases.unflatten(0, (-1, heads))
        return _join_heads(coefficients.unflatten(0, (-1, heads))), _join_heads(folded)

    def _channel(self, ham: Ham, tokens: Tensor, weight: Tensor, bases: Tensor | None) -> tuple[Tensor, Tensor]:
        heads = self.config.heads
        split = tokens.mT.unflatten(1, (heads, -1)).flatten(0, 1)
        coefficients, bases = ham(split, bases)
        folded = weight.unflatten(-1, (heads, -1)).transpose(0, 1) @ coefficients.unflatten(0, (-1, heads))
        return _join_heads(bases.unflatten(0, (-1, heads))), _join_heads(folded)

    def _finish(self, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return ``shortcut * x + gate * left @ right.mT`` as one product, with the gate in the small factor."""
        if self.gate is not None:
            right = right * self.gate.to(right.dtype)
        if self.shortcut is not None:
            x = x * self.shortcut.to(x.dtype)
        y = thin_product(left, right, like=x, add=True)
        return F.relu(y) if self.final_relu else y

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        y = y.to(x.dtype)
        y = x + y if self.gate is None else torch.addcmul(x, y, self.gate.to(x.dtype))
        return F.relu(y) if self.final_relu else y


def _head_dim(channels: int, config: HamburgerConfig) -> int:
    if config.latent_dim is not None:
        return config.latent_dim
    parts = config.heads * (2 if config.dual else 1)
    if channels % parts:
        raise ConfigError(
            f"{channels} channels do not divide into heads {config.heads}{' x 2 (dual)' if config.dual else ''}; "
            "set latent_dim"
        )
    return channels // parts


def _cheese_dim(latent: int, config: HamburgerConfig) -> int:
    if config.cheese_dim is not None:
        return config.cheese_dim
    if latent % config.cheese_factor:
        raise ConfigError(f"cheese_factor {config.cheese_factor} does not divide the {latent} latent channels")
    return latent // config.cheese_factor


def _weight(conv: nn.Module, weights: Mapping[nn.Module, Tensor] | None) -> Tensor:
    if weights is not None and conv in weights:
        return weights[conv]
    effective: Callable[[], Tensor] | None = getattr(conv, "effective_weight", None)
    if effective is not None:
        return effective()
    weight: Tensor = conv.get_parameter("weight")
    return weight


def _matmul_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def _join_heads(factor: Tensor) -> Tensor:
    """Turn [B, S, N, R] into [B, N, S*R], a view for one head."""
    return factor.transpose(1, 2).flatten(2)


def thin_product(left: Tensor, right: Tensor, like: Tensor, add: bool = False, overwrite: bool = False) -> Tensor:
    """Return ``left @ right.mT`` (+ ``like``) as a feature map in the type and memory format of ``like`` [B, C, H, W].

    With ``overwrite`` the sum may overwrite a channels-last ``like``. The product is computed in bfloat16 for bfloat16,
    but in float32 for float16, whose range the factors can exceed.
    """
    dtype = torch.float32 if like.dtype == torch.float16 else like.dtype
    left, right = left.to(dtype), right.to(dtype)
    height, width = like.shape[2:]
    with without_autocast(like.device):
        if like.is_contiguous(memory_format=torch.channels_last):
            tokens = like.flatten(2).mT.to(dtype)
            out = tokens if overwrite else None  # a copy, if the type is another
            y = (torch.baddbmm(tokens, left, right.mT, out=out) if add else torch.bmm(left, right.mT)).mT
        else:
            columns = like.flatten(2).to(dtype)
            y = torch.baddbmm(columns, right, left.mT) if add else torch.bmm(right, left.mT)
        feature_map: Tensor = y.unflatten(2, (height, width)).to(like.dtype)
        return feature_map
