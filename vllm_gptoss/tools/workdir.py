"""The folder of one interpreter: how full it is, and its removal whatever it holds.

Code can nest folders deeper than a path can be long, and make folders that their owner may not enter; `shutil` gives up
on both. Run `remove` when no process can write there any more.
"""

import contextlib
import os
import secrets
from pathlib import Path

FOLDER_MODE = 0o700


def usage(folder: Path, most: int) -> tuple[int, int]:
    """Files and folders below `folder`, and the bytes that they take on the disk; counting ends beyond `most`.

    A nesting too deep for paths counts as beyond.
    """
    count = size = 0
    waiting = [str(folder)]
    while waiting and count <= most:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                    if count > most:
                        break
        except (FileNotFoundError, PermissionError):
            continue
        except OSError:
            return most + 1, size
    return count, size


def remove(folder: Path) -> None:
    """Remove `folder` and all below it.

    Nested folders are moved up before they are emptied, so that no path grows.
    """
    with contextlib.suppress(FileNotFoundError):
        while _empty(folder, prefix=secrets.token_hex(8)):
            pass
        folder.rmdir()


def _empty(folder: Path, prefix: str) -> int:
    """Remove the files of `folder` and of the folders in it, and these; the count of folders that moved up."""
    moved = 0
    for entry in list(os.scandir(folder)):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
            continue
        os.chmod(entry.path, FOLDER_MODE)
        for child in list(os.scandir(entry.path)):
            if child.is_dir(follow_symlinks=False):
                # A folder can only be moved by who may write it: its own entry `..` changes.
                os.chmod(child.path, FOLDER_MODE)
                os.rename(child.path, folder / f"{prefix}-{moved}")
                moved += 1
            else:
                os.unlink(child.path)
        os.rmdir(entry.path)
    return moved
