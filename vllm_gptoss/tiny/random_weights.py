"""Random checkpoints on which a mistake in the arithmetic cannot hide.

A model that knows its text by heart keeps it under most mistakes, and plain random weights barely notice some
of them. These are drawn so that each part of the computation moves the next-token distribution far more than
rounding to bf16 does:
- half of the heads of sliding layers look for the key at the edge of the window, through their biases;
- the heads of full layers weigh the frequencies that YaRN interpolates;
- neurons alternate in blocks of 32: hard ones that mostly pass the clamp, and soft ones where the slope of the
  sigmoid counts, with weights in `down_proj` that let both contribute alike;
- a state has one router logit per expert with a deviation near 1, so that the fourth expert counts.
"""

import math
import zlib
from pathlib import Path

import torch

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.model.checkpoint import TensorSpec
from vllm_gptoss.model.config import WeightFormat
from vllm_gptoss.tiny.checkpoint import MAX_SHARD_BYTES, write_checkpoint
from vllm_gptoss.tiny.hf_config import PUBLISHED, REAL_VOCABULARY, Sizes

FP4_RMS = math.sqrt((0.5**2 + 1 + 1.5**2 + 2**2 + 3**2 + 4**2 + 6**2) / 8)
"""Root mean square of the E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6, all equally likely."""

P = dict(o_full=3.0,peak=6,mid_gain=.75,soft_bias=.25,mid_k=4.5,mid_q=4.5,qk_slide=0.8, qk_full=.75, edge_q=2.0, edge_k=2.0, soft_gate=1.0, soft_up=3.0, hard=10.0, down=0.7, hard_down=.12, router=1.0, head=1.5, o=1.0, v=1.0, embed=1.0)


def write_random(
    folder: Path,
    *,
    shape: str | None = None,
    layers: int | None = None,
    hidden: int = 128,
    intermediate: int = 128,
    experts: int = 8,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    vocab: int = REAL_VOCABULARY,
    seed: int = 0,
    weight_format: WeightFormat = "mxfp4",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a random checkpoint of these sizes, or of those of `shape` "20b" or "120b" (`layers` still counts).

    The tokenizer comes along when the vocabulary is the real one. One seed gives the same tensors however
    they are sharded, and the same values in both weight formats.
    """
    if shape is None:
        sizes = Sizes(layers or 4, hidden, intermediate, experts, heads, kv_heads, head_dim, vocab)
    else:
        published = PUBLISHED[shape]
        sizes = Sizes(**{**vars(published), "layers": layers or published.layers})
    write_checkpoint(folder, sizes, weight_format, _Draw(sizes, seed), max_shard_bytes)


class _Draw:
    """The distribution of each tensor, by the end of its name."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self.sizes, self.seed = sizes, seed
        self.fan_in = fan_in = 1 / math.sqrt(sizes.hidden)
        fan_out = 1 / math.sqrt(sizes.heads * sizes.head_dim)
        # Mean and standard deviation. A normed state has elements near 1, so `fan_in` times s gives sums of s.
        self.normal = {
            "embed_tokens.weight": (0, P['embed']),
            "lm_head.weight": (0, P['head'] * fan_in),
            "norm.weight": (1, 0.2),
            "layernorm.weight": (1, 0.2),
            "v_proj.weight": (0, P['v'] * fan_in),
            "o_proj.weight": (0, P['o'] * fan_out),
            "v_proj.bias": (0, P.get('vb',.5)),
            "o_proj.bias": (0, 0.3),
            "sinks": (4, 1.5),
            "router.weight": (0, P['router'] * fan_in),
            "router.bias": (0, P.get('rb',0.5)),
            "gate_up_proj_bias": (0, 2),
            "down_proj_bias": (0, P.get('db',.5)),
        }

    def __call__(self, spec: TensorSpec) -> torch.Tensor:
        name = spec.name
        kind = name.split(".")[-2] if name.endswith((".weight",".bias")) else name.split(".")[-1]
        g = self._generator(name)
        if kind in ("q_proj","k_proj"):
            return self._qk(spec, kind[0], g)
        for matrix in ("gate_up_proj","down_proj"):
            if name.endswith(matrix):
                return self._decoded(spec)
            if name.endswith(matrix + "_blocks"):
                return torch.randint(256, spec.shape, dtype=torch.uint8, generator=g)
            if name.endswith(matrix + "_scales"):
                return self._scales(name, spec.shape)
        if name.endswith('gate_up_proj_bias'):
            b=torch.randn(spec.shape,generator=g)*2
            hard=(torch.arange(self.sizes.intermediate)//32)%2==1
            b[:,0::2]*=torch.where(hard,1.0,P['soft_bias'])
            return b
        if name.endswith('o_proj.weight'):
            full=int(name.split('.')[2])%2==1
            return torch.randn(spec.shape,generator=g)*(P['o_full'] if full else P['o'])/math.sqrt(self.sizes.heads*self.sizes.head_dim)
        mean, deviation = next(row for end, row in self.normal.items() if name.endswith(end))
        return torch.empty(spec.shape, dtype=torch.bfloat16).normal_(mean, deviation, generator=g)

    def _qk(self, spec, which, g):
        s=self.sizes; half=s.head_dim//2
        layer=int(spec.name.split('.')[2]); sliding=layer%2==0
        pair=torch.arange(half)
        frac=pair*32/half
        if spec.name.endswith('weight'):
            gain=torch.ones(half)*P['qk_slide']
            if not sliding:
                gain=torch.where((frac>8.9)&(frac<P.get('mid_hi',17.4)),P['mid_gain'],P['qk_full'])
            w=torch.randn(spec.shape,generator=g).view(-1,2,half,s.hidden)*gain[:,None]*self.fan_in
            return w.reshape(spec.shape)
        group=s.heads//s.kv_heads
        # inv freq of correct yarn
        low,high=8.0928*half/32,17.398*half/32
        ramp=((pair-low)/(high-low)).clamp(0,1)
        freq=150000.0**(-pair/half)*(1-ramp*31/32)
        on_pairs=(frac<8.1) if sliding else (frac>P.get('b_lo',9.5))&(frac<P.get('b_hi',15.5))
        kb=torch.randn((s.kv_heads,2,half),generator=self._generator(f'edge{layer}'))
        unit=kb/kb.norm(dim=1,keepdim=True)
        mag=P['edge_k'] if sliding else P['mid_k']
        kb=torch.where(on_pairs,unit*mag,kb*.5)
        slow=(frac>17.5) if not sliding else torch.zeros(half,dtype=bool)
        if not sliding:
            A=int(on_pairs.sum())*P['mid_k']*P['mid_q']*.2266
            c=math.sqrt(max(A-P.get('peak',4),0)/.2266/int(slow.sum()))
            kb=torch.where(slow,unit*c,kb)
        if which=='k': return kb.reshape(-1)
        rnd=torch.randn((s.kv_heads,group,2,half),generator=g)*.5
        if sliding: dist=torch.full((s.kv_heads,group),127.5)
        else: dist=torch.rand((s.kv_heads,group),generator=g)*P.get('dspan',160)+P.get('dmin',120)
        a=-dist[...,None]*freq
        k0,k1=unit[:,None,0],unit[:,None,1]
        qb=torch.stack((k0*a.cos()-k1*a.sin(), k1*a.cos()+k0*a.sin()),2)*(P['edge_q'] if sliding else P['mid_q'])
        on=(torch.arange(group)%2==0) if sliding else torch.ones(group,dtype=bool)
        out=torch.where(on.view(1,-1,1,1)&on_pairs,qb,rnd)
        if not sliding: out=torch.where(slow,-c*unit[:,None],out)
        return out.reshape(-1)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed << 32 | zlib.crc32(name.encode()))

    def _scales(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Exponents `floor(b + 3 uniform)`: four neighbours, with exactly the mean square that is asked for.

        With n and f the whole and the fractional part of b, the mean of 4^exponent is 7 * 4^n * (1 + 3 f).
        """
        I=self.sizes.intermediate
        hard=(torch.arange(I)//32)%2==1
        if 'gate_up' in name:
            gate=torch.where(hard,P['hard'],P['soft_gate']); up=torch.where(hard,P['hard'],P['soft_up'])
            rms=torch.stack((gate,up),1).view(1,-1,1)*self.fan_in
        else:
            rms=torch.where(hard[::32],P['hard_down'],1.0).view(1,1,-1)*P['down']/math.sqrt(I)
        square = (rms / FP4_RMS) ** 2 / 7
        n = (square.log2()/2).floor()
        f = (square / 4**n - 1) / 3
        exponents = torch.rand(shape, generator=self._generator(name)).mul_(3).add_(n + f).floor_()
        return exponents.add_(127).to(torch.uint8)

    def _decoded(self, spec: TensorSpec) -> torch.Tensor:
        experts, inner, outer = spec.shape
        generator = self._generator(spec.name + "_blocks")
        blocks = torch.randint(256, (experts, outer, inner // 2), dtype=torch.uint8, generator=generator)
        scales = self._scales(spec.name + "_scales", (experts, outer, inner // 32))
        return mxfp4_decode_ref(blocks, scales).mT
