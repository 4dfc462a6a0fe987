"""The `vllm-gptoss` command: writes small checkpoints and shows that they can be talked to.

What the user got wrong is one line on stderr and exit code 2; a demo that failed ends with exit code 1.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vllm_gptoss import __version__

PROG = "vllm-gptoss"
MARKER = ".vllm-gptoss"
"""Names the files that this command wrote into a folder: a second run replaces them and nothing else."""

_SIZES = {
    "layers": "decoder layers",
    "hidden": "hidden size",
    "intermediate": "intermediate size of an expert",
    "experts": "experts a layer",
    "heads": "query heads",
    "kv-heads": "key and value heads",
    "head-dim": "size of a head",
    "vocab": "rows of the embedding; below the real 201088 no tokenizer is written",
}
_FITS_SHAPE = {"shape", "layers", "seed", "weight_format"}
"""Options that go with --shape, which stands for all the other sizes."""


class UserError(ValueError):
    """What was asked for cannot be done; the message says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` and return the exit code."""
    options = vars(_parser().parse_args(argv))
    try:
        return options.pop("run")(**options)
    except (OSError, ValueError) as error:
        print(f"{PROG}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROG, description="gpt-oss for stock vLLM: small checkpoints and a demo.")
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{tiny,demo}", dest="command")

    tiny = commands.add_parser(
        "tiny",
        help="write a small checkpoint",
        description="Write a checkpoint that knows a few conversations by heart, or with --random one of any "
        "size with random weights. A folder that this command wrote before is written anew.",
        argument_default=argparse.SUPPRESS,
    )
    tiny.add_argument("folder", type=Path, metavar="DIR", help="new or empty folder")
    tiny.add_argument("--random", action="store_true", default=False, help="random weights")
    sizes = tiny.add_argument_group("with --random")
    sizes.add_argument("--shape", choices=("20b", "120b"), help="the sizes of a published model")
    for name, meaning in _SIZES.items():
        sizes.add_argument(f"--{name}", type=_positive, metavar="N", help=meaning)
    sizes.add_argument("--seed", type=_natural, metavar="N", help="another seed gives other weights")
    sizes.add_argument("--format", dest="weight_format", choices=("mxfp4", "bf16"), help="format of the expert weights")
    tiny.set_defaults(run=_tiny)

    demo = commands.add_parser(
        "demo",
        help="serve the tiny checkpoint and talk to it",
        description="Serve the tiny checkpoint with vLLM on a free local port, hold a conversation with a "
        "tool call over Chat Completions and over Responses, and end the server.",
    )
    demo.set_defaults(run=_demo)
    return parser


def _tiny(command: str, folder: Path, random: bool, **options: Any) -> int:
    if options and not random:
        raise UserError(f"{_flag(min(options))} needs --random")
    if "shape" in options and (clash := sorted(options.keys() - _FITS_SHAPE)):
        raise UserError(f"{_flag(clash[0])} does not go with --shape, which sets it")

    from vllm_gptoss.tiny import write_random, write_tiny

    with _claimed(folder):
        if random:
            write_random(folder, **options)
        else:
            write_tiny(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    has_text = (folder / "tokenizer.json").exists()
    print(f"wrote {folder} ({size / 1e6:.1f} MB)" + (f"; serve it with: vllm serve {folder}" if has_text else ""))
    return 0


def _demo(command: str) -> int:
    from vllm_gptoss.demo.run import run

    return run()


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Empty `folder` of what this command wrote before; keep what the block writes only if it succeeds.

    Raises: UserError when the folder holds anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER
    ours = {MARKER, *marker.read_text().splitlines()} if marker.exists() else set()
    if foreign := sorted({path.name for path in folder.iterdir()} - ours):
        raise UserError(
            f"{folder} is not empty and {foreign[0]!r} was not written by this command: name another folder"
        )
    _empty(folder)
    try:
        yield
    except BaseException:
        _empty(folder)
        raise
    marker.write_text("".join(f"{path.name}\n" for path in sorted(folder.iterdir())))


def _empty(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _flag(option: str) -> str:
    return "--format" if option == "weight_format" else "--" + option.replace("_", "-")


def _one_line(error: OSError | ValueError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
