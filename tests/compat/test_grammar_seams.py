"""The seam of grammars: it works, and the tests of vLLM fail once it is needless."""

import json
from types import SimpleNamespace

import pytest
import torch
from seams_in_place import HARMONY
from transformers import AutoTokenizer
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

from vllm_gptoss import plugin


def grammar_backend(folder, stock: bool) -> XgrammarBackend:
    """What compiles grammars in the engine, as vLLM makes it or with our compiler in it."""
    plugin.register()
    config = SimpleNamespace(
        structured_outputs_config=SimpleNamespace(disable_any_whitespace=False),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(model_type="other" if stock else "gpt_oss")),
        speculative_config=None,
    )
    return XgrammarBackend(config, AutoTokenizer.from_pretrained(folder), 201088)


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "vllm"])
def test_a_string_has_no_control_token_and_in_vllm_it_has(stock, tiny_checkpoint):
    backend = grammar_backend(tiny_checkpoint, stock)
    grammar = backend.compile_grammar(StructuredOutputOptions.JSON, '{"type": "string"}')
    assert grammar.accept_tokens("0", HARMONY.encode('"a'))
    assert grammar.validate_tokens([200007]) == ([200007] if stock else [])


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "vllm"])
def test_masks_of_tokens_are_kept_apart_and_in_vllm_they_are_not(stock, tiny_checkpoint):
    backend = grammar_backend(tiny_checkpoint, stock)
    masks = backend.allocate_token_bitmask(2)
    for row, token in enumerate((200005, 200008)):
        elements = [{"type": "const_string", "value": "a"}, {"type": "token", "token": token}]
        tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}
        grammar = backend.compile_grammar(StructuredOutputOptions.STRUCTURAL_TAG, json.dumps(tag))
        assert grammar.accept_tokens("0", HARMONY.encode("a"))
        grammar.fill_bitmask(masks, row)
        assert grammar.validate_tokens([token]) == [token]
    assert torch.equal(masks[0], masks[1]) == stock
