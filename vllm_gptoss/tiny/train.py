"""Training of the tiny model, on a CPU in minutes: `python -m vllm_gptoss.tiny.train` writes `data/tiny.safetensors`.

The loss is the cross entropy over the whole vocabulary at the cost of the tokens in use: the rows of `lm_head` of
all the others stay zero, so that together they are one more logit, ln(how many they are). Experts are rounded to
MXFP4 in every step, with the gradient passed straight through, so that the model learns with what is shipped.
"""

import argparse
import math
import random
import time

import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize
from transformers import GptOssConfig, GptOssForCausalLM

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref, mxfp4_encode_ref
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.artefact import TINY, write_artefact
from vllm_gptoss.tiny.hf_config import REAL_VOCABULARY, model_config
from vllm_gptoss.tiny.render import decode, encode
from vllm_gptoss.tiny.samples import Sampler

SEED = 0
THREADS = 2
"""Sums over threads round differently, so that the number of threads is part of the recipe."""

SAMPLES, BATCH, EPOCHS, LEARNING_RATE = 6000, 16, 4, 3e-3


class StraightThroughMxfp4(torch.nn.Module):
    """Rounds `[E, in, out]` to MXFP4 along `in`; the gradient passes as if it did not."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        rounded = mxfp4_decode_ref(*mxfp4_encode_ref(weight.detach().mT), dtype=torch.float32).mT
        return weight + (rounded - weight).detach()
