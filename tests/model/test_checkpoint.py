"""Each damage that a user's folder can have is named by the check: file, tensor, found and expected."""

import json
import sys
from dataclasses import replace
from math import prod

import pytest
import torch
from safetensors.torch import save_file

from vllm_gptoss.model.checkpoint import (
    INDEX,
    ITEM_BYTES,
    CheckpointError,
    check_checkpoint,
)
from vllm_gptoss.model.config import ModelArgs, YarnRope
from vllm_gptoss.model.tensors import expected_tensors

TINY = ModelArgs(
    num_layers=2,
    hidden_size=64,
    intermediate_size=64,
    num_experts=4,
    experts_per_token=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    vocab_size=128,
    max_positions=1024,
    rms_eps=1e-5,
    swiglu_alpha=1.702,
    swiglu_limit=7.0,
    windows=(128, None),
    rope=YarnRope(150000.0, 32.0, 32.0, 1.0, 4096, False),
    weight_format="mxfp4",
)
BF16 = replace(TINY, weight_format="bf16")
GPT_OSS_20B = replace(
    TINY,
    num_layers=24,
    hidden_size=2880,
    intermediate_size=2880,
    num_experts=32,
    experts_per_token=4,
    num_heads=64,
    num_kv_heads=8,
    head_dim=64,
    vocab_size=201088,
    windows=(128, None) * 12,
)
GPT_OSS_120B = replace(GPT_OSS_20B, num_layers=36, num_experts=128, windows=(128, None) * 18)

ONE = "model.safetensors"
SHARDS = tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
NORM = "model.norm.weight"
SINKS = "model.layers.0.self_attn.sinks"
SCALES = "model.layers.1.mlp.experts.down_proj_scales"
BLOCKS = "model.layers.0.mlp.experts.gate_up_proj_blocks"
TORCH_DTYPES = {"U8": torch.uint8, "BF16": torch.bfloat16}


def tensors_of(args):
    """A value for every tensor; scale bytes stay below 255."""
    return {
        name: torch.ones(spec.shape, dtype=TORCH_DTYPES["U8" if "U8" in spec.dtypes else "BF16"])
        for name, spec in expected_tensors(args).items()
    }


def save_one(folder, tensors):
    save_file(tensors, folder / ONE, metadata={"format": "pt"})


def save_shards(folder, tensors):
    """Three files of consecutive tensors; returns the weight_map that the index holds."""
    names = list(tensors)
    third = -(-len(names) // 3)
    weight_map = {name: SHARDS[i // third] for i, name in enumerate(names)}
    for shard in SHARDS:
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, folder / shard)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def edit_header(path, edit):
    """Rewrite the header of a file through `edit(header)`, and leave the bytes of its tensors alone."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def complaint(folder, args=TINY):
    with pytest.raises(CheckpointError) as error:
        check_checkpoint(folder, args)
    return str(error.value)


def assert_one_problem(message, *parts):
    problems = [line for line in message.splitlines() if line.startswith("- ")]
    assert len(problems) == 1, message
    for part in parts:
        assert part in problems[0], f"{part!r} is not in {problems[0]!r}"


@pytest.fixture
def one(tmp_path):
    save_one(tmp_path, tensors_of(TINY))
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    save_shards(tmp_path, tensors_of(TINY))
    return tmp_path


# Names and sizes


@pytest.mark.parametrize("args", [TINY, BF16], ids=["mxfp4", "bf16"])
def test_names_and_parameters_are_a_bijection(args):
    specs = expected_tensors(args)
    assert all(name == spec.name for name, spec in specs.items())
    assert len({(spec.parameter, spec.shard) for spec in specs.values()}) == len(specs)
    shards = {}
    for spec in specs.values():
        shards.setdefault(spec.parameter, set()).add(spec.shard)
    for parameter, found in shards.items():
        assert found == ({"q", "k", "v"} if ".qkv_proj." in parameter else {None}), parameter


@pytest.mark.parametrize(("args", "a_layer"), [(TINY, 19), (BF16, 17)], ids=["mxfp4", "bf16"])
def test_names_follow_the_order_of_the_model(args, a_layer):
    names = list(expected_tensors(args))
    assert len(names) == 3 + 2 * a_layer
    assert names[0] == "model.embed_tokens.weight"
    assert names[-2:] == ["model.norm.weight", "lm_head.weight"]
    for layer in (0, 1):
        part = names[1 + layer * a_layer : 1 + (layer + 1) * a_layer]
        assert all(name.startswith(f"model.layers.{layer}.") for name in part)


def test_published_names_and_shapes():
    specs = expected_tensors(GPT_OSS_20B)
    shapes = {
        "model.embed_tokens.weight": (201088, 2880),
        "lm_head.weight": (201088, 2880),
        "model.layers.0.self_attn.q_proj.weight": (4096, 2880),
        "model.layers.0.self_attn.k_proj.weight": (512, 2880),
        "model.layers.0.self_attn.v_proj.bias": (512,),
        "model.layers.0.self_attn.o_proj.weight": (2880, 4096),
        "model.layers.0.self_attn.sinks": (64,),
        "model.layers.23.mlp.router.weight": (32, 2880),
        "model.layers.23.mlp.experts.gate_up_proj_blocks": (32, 5760, 90, 16),
        "model.layers.23.mlp.experts.gate_up_proj_scales": (32, 5760, 90),
        "model.layers.23.mlp.experts.gate_up_proj_bias": (32, 5760),
        "model.layers.23.mlp.experts.down_proj_blocks": (32, 2880, 90, 16),
        "model.layers.23.mlp.experts.down_proj_scales": (32, 2880, 90),
        "model.layers.23.mlp.experts.down_proj_bias": (32, 2880),
    }
    assert {name: specs[name].shape for name in shapes} == shapes
    assert "model.layers.24.mlp.router.weight" not in specs


def test_unequal_sizes_stand_in_their_own_places():
    """H 64 and I 96 differ here: the published sizes cannot tell them apart."""
    mxfp4 = expected_tensors(replace(TINY, intermediate_size=96))
    bf16 = expected_tensors(replace(BF16, intermediate_size=96))
    experts = "model.layers.1.mlp.experts."
    assert mxfp4[experts + "gate_up_proj_blocks"].shape == (4, 192, 2, 16)
    assert mxfp4[experts + "gate_up_proj_scales"].shape == (4, 192, 2)
    assert mxfp4[experts + "down_proj_blocks"].shape == (4, 64, 3, 16)
    assert mxfp4[experts + "down_proj_scales"].shape == (4, 64, 3)
    assert bf16[experts + "gate_up_proj"].shape == (4, 64, 192)
    assert bf16[experts + "down_proj"].shape == (4, 96, 64)


def test_only_the_experts_of_bf16_checkpoints_are_transposed():
    assert not any(spec.transposed for spec in expected_tensors(TINY).values())
    transposed = {name for name, spec in expected_tensors(BF16).items() if spec.transposed}
    expert_weights = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    assert transposed == {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in expert_weights}


@pytest.mark.parametrize(
    ("args", "billions", "gib"),
    [(GPT_OSS_20B, 20.915, 12.82), (GPT_OSS_120B, 116.829, 60.77)],
    ids=["20b", "120b"],
)
def test_published_parameters_and_bytes(args, billions, gib):
    parameters = size = 0
    for spec in expected_tensors(args).values():
        stored = prod(spec.shape)
        size += stored * ITEM_BYTES["U8" if "U8" in spec.dtypes else "BF16"]
        if spec.name.endswith("_blocks"):
            parameters += 2 * stored
        elif not spec.name.endswith("_scales"):
            parameters += stored
    assert round(parameters / 1e9, 3) == billions
    assert round(size / 2**30, 2) == gib


# Whole checkpoints


@pytest.mark.parametrize("args", [TINY, BF16], ids=["mxfp4", "bf16"])
@pytest.mark.parametrize("save", [save_one, save_shards])
def test_whole_checkpoint_passes(tmp_path, args, save):
    save(tmp_path, tensors_of(args))
    check_checkpoint(tmp_path, args)


def test_shards_without_an_index_pass(sharded):
    (sharded / INDEX).unlink()
    check_checkpoint(sharded, TINY)


def test_floats_of_another_width_pass(tmp_path):
    tensors = tensors_of(TINY)
    save_one(tmp_path, tensors | {NORM: tensors[NORM].float(), SINKS: tensors[SINKS].half()})
    check_checkpoint(tmp_path, TINY)


def test_header_in_another_order_than_the_bytes_passes(one):
    def edit(header):
        entries = list(reversed(header.items()))
        header.clear()
        header.update(entries)

    edit_header(one / ONE, edit)
    check_checkpoint(one, TINY)


def test_files_that_vllm_passes_over_are_never_opened(sharded):
    """Beside the index's files: the reference copy, another shard, a macOS companion, other formats."""
    (sharded / "original").mkdir()
    for name in ("original/model.safetensors", "stale.safetensors", "._model.safetensors", "model.bin"):
        (sharded / name).write_bytes(b"broken")
    check_checkpoint(sharded, TINY)


def test_hidden_file_is_passed_over_without_an_index(one):
    (one / "._model.safetensors").write_bytes(b"broken")
    check_checkpoint(one, TINY)


@pytest.mark.skipif("vllm" not in sys.modules, reason="vLLM imports for 20 s: runs with the whole suite")
def test_the_check_chooses_the_files_that_vllm_chooses(sharded):
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    (sharded / "stale.safetensors").write_bytes(b"broken")
    (sharded / "._model.safetensors").write_bytes(b"broken")
    loader = DefaultModelLoader(LoadConfig(load_format="auto"))
    _, chosen, _, _ = loader._prepare_weights(str(sharded), None, None, True, None)
    assert sorted(chosen) == [str(sharded / name) for name in SHARDS]
    check_checkpoint(sharded, TINY)


# Folders without the checkpoint


def test_no_folder(tmp_path):
    assert_one_problem(complaint(tmp_path / "nowhere"), "expected *.safetensors", "no such folder")


def test_empty_folder(tmp_path):
    assert_one_problem(complaint(tmp_path), "expected *.safetensors", "found none", "download")


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("original/model-00001-of-00002.safetensors", "beside it"),
        ("pytorch_model-00001-of-00002.bin", "convert"),
        ("gpt-oss-20b-mxfp4.gguf", "GGUF is not read"),
        ("snapshots/0123abc/model.safetensors", "under snapshots/"),
    ],
)
def test_something_else_instead(tmp_path, file, advice):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"whatever")
    message = complaint(tmp_path)
    assert "expected *.safetensors at the top of the folder, found none" in message
    assert advice in message


@pytest.mark.parametrize("place", ["hub/snapshots/a", "hub/snapshots/a/.cache/huggingface/download", "hub/blobs"])
def test_interrupted_download(tmp_path, place):
    folder = tmp_path / "hub/snapshots/a"
    folder.mkdir(parents=True)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "0123.incomplete").write_bytes(b"half")
    message = complaint(folder)
    assert "0123.incomplete is left of an interrupted download: run the download again" in message


def test_remains_of_a_download_do_not_stop_a_whole_checkpoint(one):
    (one / "0123.incomplete").write_bytes(b"half")
    check_checkpoint(one, TINY)


def test_file_of_mistrals_layout(sharded):
    (sharded / "original").mkdir()
    (sharded / "original/consolidated.safetensors").write_bytes(b"broken")
    assert_one_problem(complaint(sharded), "original/consolidated.safetensors", "move it")


# Files that are not whole


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "file of 0"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4792272488\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "not safetensors"),
        (b"\0\0\0\0", "file of 4"),
    ],
    ids=["empty", "git-lfs", "web page", "short"],
)
def test_file_that_is_no_weights(sharded, content, found):
    (sharded / SHARDS[1]).write_bytes(content)
    assert_one_problem(complaint(sharded), SHARDS[1], found)


def test_truncated_file(sharded):
    path = sharded / SHARDS[2]
    raw = path.read_bytes()
    path.write_bytes(raw[:-100])
    ends = f"ends at byte {len(raw)}, the file at {len(raw) - 100}"
    assert_one_problem(complaint(sharded), SHARDS[2], "truncated: tensor model.", ends)


def test_header_past_the_end(one):
    raw = (one / ONE).read_bytes()
    (one / ONE).write_bytes(raw[:1000])
    length = int.from_bytes(raw[:8], "little")
    assert_one_problem(complaint(one), ONE, f"header of {length} bytes, file of 1000", "download it again")


def test_header_that_is_too_long_for_safetensors(one):
    raw = (one / ONE).read_bytes()
    with (one / ONE).open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + raw[8:])
        file.truncate(200_000_000)  # sparse
    assert_one_problem(complaint(one), ONE, "header of 100000001 bytes", "not safetensors")


@pytest.mark.parametrize("text", [b"{{", b"\xff\xfe", b"[]", b"7", b'{"a": 1}', b'{"a": {"dtype": "U8"}}'])
def test_header_that_is_no_json_of_safetensors(one, text):
    (one / ONE).write_bytes(len(text).to_bytes(8, "little") + text)
    assert_one_problem(complaint(one), ONE, "no JSON header of safetensors", "download it again")


@pytest.mark.parametrize(
    ("field", "value"),
    [("data_offsets", [8, 0]), ("data_offsets", [-1, 7]), ("shape", ["4"]), ("shape", [-4])],
)
def test_header_with_impossible_numbers(one, field, value):
    edit_header(one / ONE, lambda header: header[SINKS].update({field: value}))
    assert_one_problem(complaint(one), ONE, "no JSON header of safetensors", str(value))


def test_bytes_after_the_end(one):
    raw = (one / ONE).read_bytes()
    (one / ONE).write_bytes(raw + b"\0" * 10)
    assert_one_problem(complaint(one), ONE, f"{len(raw) + 10} bytes long", f"describes {len(raw)}")


def test_offsets_that_overlap(one):
    def edit(header):
        header[SINKS]["data_offsets"] = [offset - 4 for offset in header[SINKS]["data_offsets"]]

    edit_header(one / ONE, edit)
    assert_one_problem(complaint(one), ONE, f"tensor {SINKS} overlaps", "expected byte", "found")


def test_offsets_with_a_hole(one):
    edit_header(one / ONE, lambda header: header.pop(SINKS))
    assert_one_problem(complaint(one), ONE, "leaves a hole before it", "expected byte", "found")


def test_offsets_that_disagree_with_the_shape(one):
    edit_header(one / ONE, lambda header: header[SINKS].update(shape=[5]))
    assert_one_problem(complaint(one), ONE, f"tensor {SINKS}", "BF16 [5] is 10 bytes, found 8")


def test_file_that_cannot_be_read(one):
    (one / ONE).unlink()
    (one / ONE).mkdir()
    assert_one_problem(complaint(one), ONE, "Is a directory")


# Tensors that are not those of the model


def test_missing_tensor(one):
    tensors = tensors_of(TINY)
    del tensors[SINKS]
    save_one(one, tensors)
    assert_one_problem(complaint(one), ONE, f"tensor {SINKS} is missing", "expected [4]")


def test_missing_tensor_of_shards_without_an_index(tmp_path):
    tensors = tensors_of(TINY)
    del tensors[SINKS]
    save_shards(tmp_path, tensors)
    (tmp_path / INDEX).unlink()
    assert_one_problem(complaint(tmp_path), f"{SHARDS[0]} to {SHARDS[2]}: tensor {SINKS} is missing")


def test_tensor_missing_from_shards_and_index(tmp_path):
    tensors = tensors_of(TINY)
    del tensors[SINKS]
    save_shards(tmp_path, tensors)
    assert_one_problem(complaint(tmp_path), f"tensor {SINKS} is missing")


@pytest.mark.parametrize("name", ["self_attn.sinks", "mlp.experts.down_proj_scales"])
def test_extra_tensor(one, name):
    name = f"model.layers.2.{name}"
    save_one(one, tensors_of(TINY) | {name: torch.full((4, 64, 2), 255, dtype=torch.uint8)})
    assert_one_problem(complaint(one), ONE, f"tensor {name} is none of the 41 expected")


def test_misshaped_tensor(one):
    save_one(one, tensors_of(TINY) | {SINKS: torch.ones(8, dtype=torch.bfloat16)})
    assert_one_problem(complaint(one), ONE, f"tensor {SINKS} is BF16 [8], expected", "[4]")


@pytest.mark.parametrize(
    ("name", "dtype", "found", "expected"),
    [
        (SINKS, torch.float64, "F64", "BF16 or F16 or F32"),
        (NORM, torch.float8_e4m3fn, "F8_E4M3", "BF16 or F16 or F32"),
        (BLOCKS, torch.int8, "I8", "U8"),
        (SCALES, torch.bfloat16, "BF16", "U8"),
    ],
)
def test_mistyped_tensor(one, name, dtype, found, expected):
    tensors = tensors_of(TINY)
    save_one(one, tensors | {name: tensors[name].to(dtype)})
    assert_one_problem(complaint(one), ONE, f"tensor {name} is {found} [", f"expected {expected} [")


@pytest.mark.parametrize(("args", "found"), [(BF16, "mxfp4"), (TINY, "bf16")])
def test_experts_of_the_other_format(tmp_path, args, found):
    save_one(tmp_path, tensors_of(replace(args, weight_format=found)))
    mismatch = f"of {found} experts, expected {args.weight_format}"
    assert_one_problem(complaint(tmp_path, args), ONE, mismatch, "quantization_config")


def test_expert_of_both_formats_is_an_extra_tensor(one):
    name = "model.layers.0.mlp.experts.down_proj"
    save_one(one, tensors_of(TINY) | {name: torch.ones(4, 64, 64)})
    assert_one_problem(complaint(one), ONE, f"tensor {name} is none of the 41 expected")


# Index and shards


def test_index_that_is_no_json(sharded):
    (sharded / INDEX).write_text('{"weight_map": {')
    assert_one_problem(complaint(sharded), INDEX, "not JSON with a weight_map", "download it again")


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 1}}']
)
def test_index_without_a_weight_map(sharded, content):
    (sharded / INDEX).write_text(content)
    assert_one_problem(complaint(sharded), INDEX, "not JSON with a weight_map")


def test_index_that_names_a_missing_file(sharded):
    (sharded / SHARDS[1]).unlink()
    assert_one_problem(complaint(sharded), SHARDS[1], "not in the folder", INDEX, "download it again")


@pytest.mark.parametrize("name", [f"weights/{ONE}", f"../{ONE}", ".model.safetensors", "model.bin"])
def test_index_that_names_a_file_that_vllm_does_not_see(one, name):
    """vLLM refuses it as well: its pattern enters no folder and passes over hidden files."""
    write_index(one, dict.fromkeys(expected_tensors(TINY), name))
    assert_one_problem(complaint(one), INDEX, repr(name), "of the folder itself")


def test_missing_shard_without_an_index(sharded):
    (sharded / INDEX).unlink()
    (sharded / SHARDS[1]).unlink()
    assert_one_problem(complaint(sharded), SHARDS[1], "not in the folder", "its siblings")


def test_link_to_a_file_that_is_gone(sharded):
    (sharded / SHARDS[1]).unlink()
    (sharded / SHARDS[1]).symlink_to(sharded / "blob")
    assert_one_problem(complaint(sharded), SHARDS[1], "not in the folder", INDEX)


def test_link_to_a_single_file_that_is_gone(one):
    (one / ONE).rename(one / "moved")
    (one / ONE).symlink_to(one / "blob")
    assert_one_problem(complaint(one), ONE, "not in the folder, expected by a link")


def test_index_that_names_another_shard(tmp_path):
    weight_map = save_shards(tmp_path, tensors_of(TINY))
    assert weight_map[NORM] == SHARDS[2]
    write_index(tmp_path, weight_map | {NORM: SHARDS[0]})
    message = complaint(tmp_path)
    assert_one_problem(message, f"{SHARDS[0]}: tensor {NORM} is in {SHARDS[2]}, expected here by {INDEX}")


def test_index_that_names_a_tensor_in_no_file(tmp_path):
    tensors = tensors_of(TINY)
    weight_map = save_shards(tmp_path, {name: tensors[name] for name in tensors if name != SINKS})
    write_index(tmp_path, weight_map | {SINKS: SHARDS[0]})
    assert_one_problem(complaint(tmp_path), f"{SHARDS[0]}: tensor {SINKS} is missing", INDEX)


def test_tensor_in_two_shards_of_the_index(sharded):
    tensors = tensors_of(TINY)
    weight_map = json.loads((sharded / INDEX).read_text())["weight_map"]
    third = [name for name in tensors if weight_map[name] == SHARDS[2]]
    save_file({name: tensors[name] for name in [*third, SINKS]}, sharded / SHARDS[2])
    assert_one_problem(
        complaint(sharded), f"{SHARDS[0]} and {SHARDS[2]}", f"tensor {SINKS}", f"expected in {SHARDS[0]}"
    )


def test_two_copies_without_an_index(sharded):
    (sharded / INDEX).unlink()
    save_one(sharded, tensors_of(TINY))
    message = complaint(sharded)
    first = "tensor model.embed_tokens.weight is in each, expected in only one of them"
    assert f"{SHARDS[0]} and {ONE}: {first}" in message
    assert message.endswith("and 33 more")


def test_tensor_that_the_index_forgets_is_loaded_all_the_same(tmp_path):
    weight_map = save_shards(tmp_path, tensors_of(TINY))
    del weight_map[SINKS]
    write_index(tmp_path, weight_map)
    check_checkpoint(tmp_path, TINY)


# Scales, and the report


@pytest.mark.parametrize(("expert", "row", "block"), [(0, 0, 0), (2, 37, 1), (3, 63, 1)])
def test_nan_scale(tmp_path, expert, row, block):
    tensors = tensors_of(TINY)
    tensors[SCALES][expert, row, block] = 255
    tensors[SCALES][3, 63, 1] = 255
    save_shards(tmp_path, tensors)
    where = f"NaN (byte 255) at expert {expert}, row {row}, block {block},"
    assert_one_problem(complaint(tmp_path), f"{SHARDS[2]}: tensor {SCALES} is {where}", "expected 0 to 254")


@pytest.mark.parametrize(
    "scales",
    [torch.full((4, 64, 2), -1, dtype=torch.int8), torch.full((4, 32, 2), 255, dtype=torch.uint8)],
    ids=["mistyped", "misshaped"],
)
def test_bytes_that_are_no_scales_are_not_searched(one, scales):
    save_one(one, tensors_of(TINY) | {SCALES: scales})
    assert_one_problem(complaint(one), ONE, f"tensor {SCALES}", "expected")


def test_byte_255_is_a_value_anywhere_but_in_scales(tmp_path):
    tensors = tensors_of(TINY)
    tensors[BLOCKS].fill_(255)
    tensors[SCALES].fill_(254)
    tensors[NORM].view(torch.uint8).fill_(255)
    save_one(tmp_path, tensors)
    check_checkpoint(tmp_path, TINY)


def test_problems_are_reported_together(sharded):
    tensors = tensors_of(TINY)
    tensors[SCALES][1, 2, 0] = 255
    tensors[SINKS] = torch.ones(8, dtype=torch.bfloat16)
    save_shards(sharded, tensors)
    (sharded / SHARDS[1]).write_bytes(b"")
    message = complaint(sharded)
    assert message.startswith(str(sharded))
    assert f"{SHARDS[1]}: header of 0 bytes, file of 0" in message
    assert f"tensor {SINKS} is BF16 [8]" in message
    assert f"tensor {SCALES} is NaN" in message
    assert "missing" not in message


def test_the_report_stops_after_eight_problems(one):
    tensors = tensors_of(TINY)
    save_one(one, {name: tensor for name, tensor in tensors.items() if ".layers." not in name})
    lines = complaint(one).splitlines()
    assert len(lines) == 10
    assert lines[-1] == f"and {2 * 19 - 8} more"
