"""The command line: what it writes, and one line on stderr for what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_gptoss import __version__, cli

SMALL = "--layers 1 --hidden 32 --intermediate 32 --experts 4 --heads 2 --kv-heads 1 --head-dim 16 --vocab 64"


def run(arguments: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """The installed command, as a user starts it."""
    command = [Path(sys.executable).with_name("vllm-gptoss"), *arguments.split(), *paths]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_the_installed_command_tells_its_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"vllm-gptoss {__version__}\n")


@pytest.mark.parametrize("arguments", ["--help", "tiny --help", "demo --help"])
def test_help_is_there(arguments, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(arguments.split())
    assert "usage: vllm-gptoss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", "required: {tiny,demo}"),
        ("bogus", "invalid choice: 'bogus'"),
        ("tiny", "required: DIR"),
        ("tiny x --layers 2", "--layers needs --random"),
        ("tiny x --format bf16", "--format needs --random"),
        ("tiny --random x --shape 20b --hidden 64", "--hidden does not go with --shape"),
        ("tiny --random x --shape 7b", "invalid choice: '7b'"),
        ("tiny --random x --format fp8", "invalid choice: 'fp8'"),
        ("tiny --random x --layers 0", "argument --layers: '0' is not a positive whole number"),
        ("tiny --random x --experts few", "argument --experts: 'few' is not a positive whole number"),
        ("tiny --random x --seed -1", "argument --seed"),
        ("demo now", "unrecognized arguments: now"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(arguments.split())
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("vllm-gptoss")
    assert reason in err
    assert names(tmp_path) == set()


def test_random_writes_the_sizes_that_were_asked_for(tmp_path, capsys):
    assert cli.main(["tiny", "--random", str(tmp_path / "new" / "folder"), *SMALL.split(), "--format", "bf16"]) == 0
    config = config_of(tmp_path / "new" / "folder")
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_local_experts")
    assert [config[key] for key in keys] == [1, 32, 32, 4]
    keys = ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
    assert [config[key] for key in keys] == [2, 1, 16, 64]
    assert "quantization_config" not in config
    assert "wrote" in capsys.readouterr().out


def test_random_takes_the_sizes_of_a_published_model(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("vllm_gptoss.tiny.write_random", lambda folder, **options: asked.update(options))
    assert cli.main(["tiny", "--random", "--shape", "120b", "--layers", "2", "--seed", "7", str(tmp_path)]) == 0
    assert asked == {"shape": "120b", "layers": 2, "seed": 7}


def test_a_seed_gives_the_same_checkpoint_again(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli.main(["tiny", "--random", str(tmp_path / name), *SMALL.split(), "--seed", str(seed)]) == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_tiny_writes_a_whole_checkpoint_and_writes_it_anew(tmp_path):
    done = run("tiny", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"} <= names(tmp_path)
    assert config_of(tmp_path)["model_type"] == "gpt_oss"
    assert f"vllm serve {tmp_path}" in done.stdout

    assert cli.main(["tiny", "--random", str(tmp_path), *SMALL.split()]) == 0
    assert names(tmp_path) == {cli.MARKER, "config.json", "generation_config.json", "model.safetensors"}


def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path):
    arguments = ["tiny", "--random", str(tmp_path), *SMALL.split()]
    assert cli.main(arguments) == 0
    (tmp_path / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = run("tiny", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"vllm-gptoss: {tmp_path} is not empty and 'notes.txt' was not written by this command: name another folder\n"
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_checkpoint_from_elsewhere_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    assert cli.main(["tiny", str(tmp_path)]) == 2
    assert "'config.json' was not written by this command" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli.main(["tiny", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "File exists" in err
    assert err.count("\n") == 1


def test_sizes_that_cannot_be_leave_nothing_behind(tmp_path, capsys):
    assert cli.main(["tiny", "--random", str(tmp_path), *SMALL.split(), "--head-dim", "15"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "head_dim 15" in err
    assert names(tmp_path) == set()


def test_a_write_that_is_interrupted_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    def interrupted(folder):
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr("vllm_gptoss.tiny.write_tiny", interrupted)
    assert cli.main(["tiny", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "vllm-gptoss: interrupted\n"
    assert names(tmp_path) == set()
