"""The tensors of a Hugging Face gpt-oss checkpoint: their names, shapes and places in our model, and a check
of the files before anything is loaded.

`TABLE` is the only place that knows the names of the checkpoint. A `.safetensors` file is 8 bytes of
little-endian length N, N bytes of JSON `{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the
tensors without gaps. The check reads headers, and of the data only the scales.

Source: the published checkpoints of gpt-oss-20b and gpt-oss-120b; https://github.com/huggingface/safetensors.
"""

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs

FLOAT = frozenset({"BF16", "F16", "F32"})
BYTE = frozenset({"U8"})
ITEM_BYTES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}
ALL, MXFP4, BF16 = ("mxfp4", "bf16"), ("mxfp4",), ("bf16",)
LAYER = "model.layers.N."
ATTN = LAYER + "self_attn."
EXPERTS = LAYER + "mlp.experts."
OURS = EXPERTS + "routed_experts."
SAME = ""

# Sizes: V vocabulary, H hidden, I intermediate, E experts, Q query heads, QD and KD query and key heads times
# head_dim. Columns: weight formats, tensor of the checkpoint, its shape, its dtypes, our parameter, shard.
TABLE = (
    (ALL, "model.embed_tokens.weight", "V H", FLOAT, SAME, None),
    (ALL, LAYER + "input_layernorm.weight", "H", FLOAT, SAME, None),
    (ALL, ATTN + "q_proj.weight", "QD H", FLOAT, ATTN + "qkv_proj.weight", "q"),
    (ALL, ATTN + "q_proj.bias", "QD", FLOAT, ATTN + "qkv_proj.bias", "q"),
    (ALL, ATTN + "k_proj.weight", "KD H", FLOAT, ATTN + "qkv_proj.weight", "k"),
    (ALL, ATTN + "k_proj.bias", "KD", FLOAT, ATTN + "qkv_proj.bias", "k"),
    (ALL, ATTN + "v_proj.weight", "KD H", FLOAT, ATTN + "qkv_proj.weight", "v"),
    (ALL, ATTN + "v_proj.bias", "KD", FLOAT, ATTN + "qkv_proj.bias", "v"),
    (ALL, ATTN + "sinks", "Q", FLOAT, SAME, None),
    (ALL, ATTN + "o_proj.weight", "H QD", FLOAT, SAME, None),
    (ALL, ATTN + "o_proj.bias", "H", FLOAT, SAME, None),
    (ALL, LAYER + "post_attention_layernorm.weight", "H", FLOAT, SAME, None),
    (ALL, LAYER + "mlp.router.weight", "E H", FLOAT, SAME, None),
    (ALL, LAYER + "mlp.router.bias", "E", FLOAT, SAME, None),
    (MXFP4, EXPERTS + "gate_up_proj_blocks", "E 2I H/32 16", BYTE, OURS + "w13_weight", None),
    (MXFP4, EXPERTS + "gate_up_proj_scales", "E 2I H/32", BYTE, OURS + "w13_weight_scale", None),
    (BF16, EXPERTS + "gate_up_proj", "E H 2I", FLOAT, OURS + "w13_weight", None),
    (ALL, EXPERTS + "gate_up_proj_bias", "E 2I", FLOAT, OURS + "w13_bias", None),
    (MXFP4, EXPERTS + "down_proj_blocks", "E H I/32 16", BYTE, OURS + "w2_weight", None),
    (MXFP4, EXPERTS + "down_proj_scales", "E H I/32", BYTE, OURS + "w2_weight_scale", None),
    (BF16, EXPERTS + "down_proj", "E I H", FLOAT, OURS + "w2_weight", None),
    (ALL, EXPERTS + "down_proj_bias", "E H", FLOAT, OURS + "w2_bias", None),
    (ALL, "model.norm.weight", "H", FLOAT, SAME, None),
    (ALL, "lm_head.weight", "V H", FLOAT, SAME, None),
)

NAN_SCALE = b"\xff"
"""E8M0 has one NaN and no infinity (OCP microscaling formats, v1.0)."""

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors library."""

LISTED = 8
"""Problems that one error spells out."""

INSTEAD = (
    ("snapshots/*/*.safetensors", "this is the cache of a download: name the folder under snapshots/"),
    ("original", "original/ is the reference layout: download the *.safetensors beside it as well"),
    ("*.bin", "pickled weights are not read: convert them to safetensors"),
    ("*.gguf", "GGUF is not read: download the safetensors checkpoint"),
)
"""What folders without *.safetensors hold, and what to do about it."""


class CheckpointError(ValueError):
    """The files of the checkpoint are not what `config.json` describes."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the checkpoint and the parameter that it fills."""

    name: str
    shape: tuple[int, ...]
    dtypes: frozenset[str]
    """As safetensors calls them: U8, BF16, F16, F32."""
    parameter: str
    shard: str | None
    """Part of a stacked parameter: "q", "k" or "v"."""
    transposed: bool
    """The file holds `[E, in, out]` and the parameter `[E, out, in]`: experts of bf16 checkpoints."""


def expected_tensors(args: ModelArgs) -> dict[str, TensorSpec]:
    """Every tensor of the checkpoint by name, in the order of the model."""
    sizes = {
        "V": args.vocab_size,
        "H": args.hidden_size,
        "I": args.intermediate_size,
        "2I": 2 * args.intermediate_size,
        "H/32": args.hidden_size // MXFP4_BLOCK,
        "I/32": args.intermediate_size // MXFP4_BLOCK,
        "16": MXFP4_BLOCK // 2,
        "E": args.num_experts,
        "Q": args.num_heads,
        "QD": args.num_heads * args.head_dim,
        "KD": args.num_kv_heads * args.head_dim,
    }
    rows = [row for row in TABLE if args.weight_format in row[0]]
    specs = {}
    for in_layers, group in groupby(rows, key=lambda row: row[1].startswith(LAYER)):
        group = list(group)
        for layer in range(args.num_layers if in_layers else 1):
            prefix = LAYER.replace("N", str(layer))
            for formats, name, shape, dtypes, parameter, shard in group:
                spec = TensorSpec(
                    name=name.replace(LAYER, prefix),
                    shape=tuple(sizes[size] for size in shape.split()),
                    dtypes=dtypes,
                    parameter=(parameter or name).replace(LAYER, prefix),
                    shard=shard,
                    transposed=formats == BF16,
                )
                specs[spec.name] = spec
    return specs


@dataclass(frozen=True)
class _Entry:
    """One tensor in the header of a file; `begin` and `end` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


_Files = dict[str, dict[str, _Entry]]
"""File name -> tensor name -> entry, for the files whose headers are sound."""


def check_checkpoint(folder: Path, args: ModelArgs) -> None:
    """Compare the files that vLLM would load from `folder` with `config.json`, before anything is loaded.

    Those are the files that the index names, or without an index every *.safetensors of the folder itself.
    Only headers are read, and the scales, where byte 255 is NaN and would spread in silence.

    Raises: CheckpointError with the first problems: file, tensor, found and expected, what to do.
    """
    names, weight_map, problems = _choose_files(folder)
    files: _Files = {}
    for name in names:
        try:
            files[name] = _read_header(folder / name)
        except FileNotFoundError:
            reason = f"{INDEX} names it" if weight_map else "its siblings are"
            problems.append(f"{name}: not in the folder, though {reason}: download it again")
        except (OSError, CheckpointError) as error:
            problems.append(f"{name}: {error}")
    specs = expected_tensors(args)
    problems += _misplaced(files, weight_map)
    problems += _missing_and_extra(args, files, weight_map, whole=len(files) == len(names))
    problems += _misfitting(specs, files)
    for name, entries in files.items():
        problems += _nan_scales(folder / name, entries, specs)
    if problems:
        raise CheckpointError(_report(folder, problems))


def _choose_files(folder: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """Names of the files that vLLM loads, the index's weight_map (empty without one), and problems."""
    problems = [
        f"{path.relative_to(folder)}: vLLM takes a folder with such a file for Mistral's layout and loads "
        "nothing else: move it out of the folder"
        for path in sorted(folder.rglob("consolidated*.safetensors"))
    ]
    # vLLM's shell pattern passes over hidden files, such as the `._name` that macOS leaves.
    present = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if (folder / INDEX).is_file():
        try:
            weight_map = json.loads((folder / INDEX).read_bytes())["weight_map"]
            named = sorted(set(weight_map.values()))
            strays = [name for name in named if not re.fullmatch(r"[^./][^/]*\.safetensors", name)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{INDEX}: not JSON with a weight_map ({error!r}): download it again")
            return present, {}, problems
        problems += [f"{INDEX}: names {name!r}, not a *.safetensors of the folder itself" for name in strays]
        return [name for name in named if name not in strays], weight_map, problems
    if not present:
        raise CheckpointError(_report(folder, [*problems, *_instead(folder)]))
    siblings = set(present)
    for name in present:
        if match := re.fullmatch(r"(.*-)(\d{5})-of-(\d{5})\.safetensors", name):
            stem, _, last = match.groups()
            siblings |= {f"{stem}{i:05}-of-{last}.safetensors" for i in range(1, int(last) + 1)}
    return sorted(siblings), {}, problems


def _instead(folder: Path) -> Iterator[str]:
    missing = "none" if folder.is_dir() else "no such folder"
    yield f"expected *.safetensors at the top level of the folder, found {missing}: download the checkpoint"
    for pattern, advice in INSTEAD:
        if found := sorted(folder.glob(pattern)):
            yield f"{found[0].relative_to(folder)}: {advice}"


def _report(folder: Path, problems: list[str]) -> str:
    lines = [f"{folder} does not hold the gpt-oss checkpoint that its config.json describes:"]
    lines += [f"- {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"and {len(problems) - LISTED} more")
    # Where `hf download` keeps unfinished files: beside them, in the local folder, in the shared cache.
    for pattern in ("*.incomplete", ".cache/huggingface/download/*.incomplete", "../../blobs/*.incomplete"):
        if found := sorted(folder.glob(pattern)):
            lines.append(f"{found[0].name} is left of an interrupted download: run the download again")
    return "\n".join(lines)


def _read_header(path: Path) -> dict[str, _Entry]:
    """The entries of a file in the order of its bytes.

    Raises: CheckpointError unless the file is whole: what the header says covers every byte once.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            file.seek(0)
            raise CheckpointError(_no_header(file.read(64), size, length))
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {name: _entry(raw, 8 + length) for name, raw in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"no JSON header of safetensors ({error!r}): download it again") from None
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(entries, 8 + length, size)
    return entries


def _no_header(start: bytes, size: int, length: int) -> str:
    if size == 0:
        return "the file is empty: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer and not the weights: run `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page and not the weights: download it again"
    return f"header of {length} bytes, file of {size}: truncated or not safetensors, download it again"


def _entry(raw: Mapping[str, Any], data: int) -> _Entry:
    begin, end = raw["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*raw["shape"], begin, end - begin)):
        raise ValueError(f"no shape or range: {raw['shape']}, {raw['data_offsets']}")
    return _Entry(str(raw["dtype"]), tuple(raw["shape"]), data + begin, data + end)


def _check_layout(entries: dict[str, _Entry], data: int, size: int) -> None:
    position = data
    for name, entry in entries.items():
        wanted, held = prod(entry.shape) * ITEM_BYTES.get(entry.dtype, 0), entry.end - entry.begin
        if entry.dtype in ITEM_BYTES and held != wanted:
            raise CheckpointError(
                f"tensor {name}: {entry.dtype} {list(entry.shape)} takes {wanted} bytes, data_offsets give "
                f"{held}: download it again"
            )
        if entry.begin != position:
            what = "overlaps the tensor before it" if entry.begin < position else "leaves a hole before it"
            raise CheckpointError(
                f"tensor {name} {what}, expected byte {position}, found {entry.begin}: download it again"
            )
        if entry.end > size:
            whole = max(entry.end for entry in entries.values())
            raise CheckpointError(
                f"truncated: tensor {name} ends at byte {entry.end}, the file has {size} of {whole}: "
                "download it again"
            )
        position = entry.end
    if position != size:
        raise CheckpointError(f"{size} bytes long, its header describes {position}: download it again")


def _misplaced(files: _Files, weight_map: dict[str, str]) -> Iterator[str]:
    """Tensors in two files, and tensors in another file than the index names."""
    holders: dict[str, list[str]] = {}
    for file, entries in files.items():
        for name in entries:
            holders.setdefault(name, []).append(file)
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, where in holders.items():
        if len(where) > 1:
            shared.setdefault(tuple(where), []).append(name)
    for where, names in shared.items():
        home = weight_map.get(names[0], "only one of them")
        more = f" and {len(names) - 1} others" if len(names) > 1 else ""
        yield (
            f"{' and '.join(where)}: each hold tensor {names[0]}{more}, expected in {home}: "
            "remove the files of the second copy"
        )
    for name, file in weight_map.items():
        if file in files and name in holders and file not in holders[name]:
            yield f"{file}: tensor {name} is in {holders[name][0]}, expected here by {INDEX}: download again"
        elif file in files and name not in holders:
            yield f"{file}: tensor {name} is missing, expected here by {INDEX}: download again"


def _missing_and_extra(
    args: ModelArgs, files: _Files, weight_map: dict[str, str], whole: bool
) -> Iterator[str]:
    """`whole`: every file could be read, so that a tensor in none of them is missing."""
    specs = expected_tensors(args)
    found = {name: file for file, entries in files.items() for name in entries}
    where = " to ".join(dict.fromkeys([*files][:1] + [*files][-1:]))
    if found and not found.keys() & specs.keys():
        yield (
            f"{where}: found tensor {next(iter(found))} and {len(found) - 1} others, none of the "
            f"{len(specs)} expected: name the folder of a gpt-oss checkpoint in the Hugging Face layout, not "
            "its original/ and not an adapter"
        )
        return
    other = "bf16" if args.weight_format == "mxfp4" else "mxfp4"
    others = expected_tensors(replace(args, weight_format=other))
    swapped = [name for name in found if name in others and name not in specs]
    if swapped and not found.keys() & (specs.keys() - others.keys()):
        yield (
            f"{found[swapped[0]]}: tensor {swapped[0]} is of {other} experts, expected {args.weight_format}: "
            "correct quantization_config in config.json, it is of another checkpoint"
        )
        specs = {name: spec for name, spec in specs.items() if name in others}
        found = {name: file for name, file in found.items() if name not in swapped}
    for name in specs:
        # One that the index names has been reported with the file that should hold it.
        if whole and name not in found and name not in weight_map:
            shape = list(specs[name].shape)
            yield f"{where}: tensor {name} is missing, expected {shape}: download again"
    for name, file in found.items():
        if name not in specs:
            yield (
                f"{file}: tensor {name} is none of the {len(specs)} expected: take the config.json of this "
                "checkpoint, or move the file away if it belongs to something else"
            )


def _misfitting(specs: dict[str, TensorSpec], files: _Files) -> Iterator[str]:
    for file, entries in files.items():
        for name, entry in entries.items():
            spec = specs.get(name)
            if spec and entry.shape != spec.shape:
                yield (
                    f"{file}: tensor {name} has shape {list(entry.shape)}, expected {list(spec.shape)}: "
                    "take the config.json of this checkpoint"
                )
            if spec and entry.dtype not in spec.dtypes:
                yield (
                    f"{file}: tensor {name} is {entry.dtype}, expected {' or '.join(sorted(spec.dtypes))}: "
                    "convert the checkpoint or take the published one"
                )


def _nan_scales(path: Path, entries: dict[str, _Entry], specs: dict[str, TensorSpec]) -> Iterator[str]:
    """The first NaN of each scale tensor `[E, rows, blocks]`; `find` walks the page cache without a copy."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name, entry in entries.items():
            spec = specs.get(name)
            fits = spec and entry.shape == spec.shape and entry.dtype in spec.dtypes
            if not fits or not name.endswith("_scales"):
                continue
            if (at := data.find(NAN_SCALE, entry.begin, entry.end)) < 0:
                continue
            _, rows, blocks = spec.shape
            row, block = divmod(at - entry.begin, blocks)
            expert, row = divmod(row, rows)
            yield (
                f"{path.name}: tensor {name} is NaN (byte 255) at expert {expert}, row {row}, block {block}, "
                "expected 0 to 254: download it again, or quantize it again"
            )
