"""A check of a checkpoint's files against its `config.json`, before anything is loaded.

A `.safetensors` file is 8 bytes of little-endian length N, N bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the tensors without gaps.

Source: https://github.com/huggingface/safetensors.
"""

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.tensors import TensorSpec, expected_tensors

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library
ITEM_BYTES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}
LISTED = 8  # problems that one error spells out
NAN_SCALE = b"\xff"  # the only NaN of E8M0 (OCP microscaling formats, v1.0)
# What folders without *.safetensors hold, and what to do about it.
INSTEAD = (
    ("snapshots/*/*.safetensors", "this is the cache of a download: name the folder under snapshots/"),
    ("original", "original/ is the reference layout: download the *.safetensors beside it as well"),
    ("*.bin", "pickled weights are not read: convert them to safetensors"),
    ("*.gguf", "GGUF is not read: download the safetensors checkpoint"),
)
AGAIN = "download it again"
WRONG_CONFIG = "take the config.json of this checkpoint, or the checkpoint of this config.json"


class CheckpointError(ValueError):
    """The files of the checkpoint are not what `config.json` describes."""


class _Entry(NamedTuple):
    """One tensor in the header of a file; begin and end count bytes from the start of the file."""

    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


_Files = dict[str, dict[str, _Entry]]  # whole files: file name -> tensor name -> entry


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
            named_by = INDEX if weight_map else "a link or its siblings"
            problems.append(f"{name}: not in the folder, expected by {named_by}: {AGAIN}")
        except (OSError, CheckpointError) as error:
            problems.append(f"{name}: {error}: {AGAIN}")
    problems += _misplaced(files, weight_map)
    problems += _unpaired(args, files, weight_map, whole=0 < len(files) == len(names))
    specs = expected_tensors(args)
    for name, entries in files.items():
        problems += _misfitting(folder / name, entries, specs)
    if problems:
        raise CheckpointError(_report(folder, problems))


def _choose_files(folder: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """Names of the files that vLLM loads, the index's weight_map (empty without one), and problems."""
    problems = [
        f"{path.relative_to(folder)}: vLLM takes it for Mistral's layout and loads nothing else: move it away"
        for path in sorted(folder.rglob("consolidated*.safetensors"))
    ]
    # vLLM's shell pattern passes over hidden files, such as the `._name` that macOS leaves.
    present = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if (folder / INDEX).is_file():
        try:
            weight_map = json.loads((folder / INDEX).read_bytes())["weight_map"]
            if not (named := sorted(set(weight_map.values()))):
                raise ValueError("it is empty")
            strays = [name for name in named if not re.fullmatch(r"[^./][^/]*\.safetensors", name)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{INDEX}: not JSON with a weight_map ({error!r}): {AGAIN}")
            return present, {}, problems
        problems += [f"{INDEX}: names {name!r}, not a *.safetensors of the folder itself" for name in strays]
        return [name for name in named if name not in strays], weight_map, problems
    if not present:
        found = "none" if folder.is_dir() else "no such folder"
        problems.append(f"expected *.safetensors at the top of the folder, found {found}: download them")
        for pattern, advice in INSTEAD:
            problems += [f"{path.name}: {advice}" for path in sorted(folder.glob(pattern))[:1]]
    siblings = set(present)
    for name in present:
        if match := re.fullmatch(r"(.*-)\d{5}(-of-(\d{5})\.safetensors)", name):
            siblings |= {f"{match[1]}{i:05}{match[2]}" for i in range(1, int(match[3]) + 1)}
    return sorted(siblings), {}, problems


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
    """The entries in the order of their bytes. Raises: CheckpointError unless they cover every byte once."""
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise CheckpointError("a git-lfs pointer and not the weights (`git lfs pull` fetches them)")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(f"header of {length} bytes, file of {size}: truncated or not safetensors")
        text = file.read(length)
    try:
        header = json.loads(text).items()
        entries = {name: _entry(raw, 8 + length) for name, raw in header if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"no JSON header of safetensors ({error!r})") from None
    entries = dict(sorted(entries.items(), key=lambda item: item[1]))
    _check_layout(entries, 8 + length, size)
    return entries


def _entry(raw: Mapping[str, Any], data: int) -> _Entry:
    begin, end = raw["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*raw["shape"], begin, end - begin)):
        raise ValueError(f"no shape or range: {raw['shape']}, {raw['data_offsets']}")
    return _Entry(data + begin, data + end, str(raw["dtype"]), tuple(raw["shape"]))


def _check_layout(entries: dict[str, _Entry], data: int, size: int) -> None:
    position = data
    for name, (begin, end, dtype, shape) in entries.items():
        held = end - begin
        wanted = prod(shape) * ITEM_BYTES[dtype] if dtype in ITEM_BYTES else held
        if held != wanted:
            raise CheckpointError(f"tensor {name}: {dtype} {list(shape)} is {wanted} bytes, found {held}")
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise CheckpointError(f"tensor {name} {fault}, expected byte {position}, found {begin}")
        if end > size:
            raise CheckpointError(f"truncated: tensor {name} ends at byte {end}, the file at {size}")
        position = end
    if position != size:
        raise CheckpointError(f"{size} bytes long, its header describes {position}")


def _misplaced(files: _Files, weight_map: dict[str, str]) -> Iterator[str]:
    """Tensors in two files, and tensors that are not in the file that the index names."""
    holders: dict[str, list[str]] = {}
    for file, entries in files.items():
        for name in entries:
            holders.setdefault(name, []).append(file)
    for name, where in holders.items():
        if len(where) > 1:
            home = weight_map.get(name, "only one of them")
            yield f"{' and '.join(where)}: tensor {name} is in each, expected in {home}: remove the other"
    for name, file in weight_map.items():
        if file in files and name not in files[file]:
            found = f"is in {holders[name][0]}" if name in holders else "is missing"
            yield f"{file}: tensor {name} {found}, expected here by {INDEX}: {AGAIN}"


def _unpaired(args: ModelArgs, files: _Files, weight_map: dict[str, str], whole: bool) -> Iterator[str]:
    """Missing and extra tensors. `whole`: all files could be read, a tensor in none of them is missing."""
    specs = expected_tensors(args)
    found = {name: file for file, entries in files.items() for name in entries}
    other = "bf16" if args.weight_format == "mxfp4" else "mxfp4"
    others = expected_tensors(replace(args, weight_format=other))
    swapped = [name for name in found if name in others and name not in specs]
    if swapped and not found.keys() & (specs.keys() - others.keys()):
        yield (
            f"{found[swapped[0]]}: tensor {swapped[0]} is of {other} experts, expected {args.weight_format}: "
            "correct quantization_config in config.json, it is of another checkpoint"
        )
        return
    where = " to ".join(dict.fromkeys([*files][:1] + [*files][-1:]))
    for name, spec in specs.items():
        # One that the index names has been reported with the file that should hold it.
        if whole and name not in found and name not in weight_map:
            yield f"{where}: tensor {name} is missing, expected {list(spec.shape)}: {AGAIN}"
    for name, file in found.items():
        if name not in specs:
            yield f"{file}: tensor {name} is none of the {len(specs)} expected: {WRONG_CONFIG}"


def _misfitting(path: Path, entries: dict[str, _Entry], specs: dict[str, TensorSpec]) -> Iterator[str]:
    """Another shape or dtype, and NaN scales `[E, rows, blocks]`, searched in the page cache, uncopied."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name, (begin, end, dtype, shape) in entries.items():
            spec = specs.get(name)
            if spec and (shape != spec.shape or dtype not in spec.dtypes):
                expected = f"{' or '.join(sorted(spec.dtypes))} {list(spec.shape)}"
                found = f"{path.name}: tensor {name} is {dtype} {list(shape)}"
                yield f"{found}, expected {expected}: {WRONG_CONFIG}"
            elif spec and name.endswith("_scales") and (at := data.find(NAN_SCALE, begin, end)) >= 0:
                row, block = divmod(at - begin, shape[-1])
                where = f"expert {row // shape[-2]}, row {row % shape[-2]}, block {block}"
                yield f"{path.name}: tensor {name} is NaN (byte 255) at {where}, expected 0 to 254: {AGAIN}"
