"""README.md: its length, and its commands, of which each is run that needs no network and ends by itself."""

import re
import shlex
import shutil

import pytest
from conftest import ROOT, SCRIPTS
from stages import write_picture

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.strip() for line in re.findall(r"(?:python|bash) scripts/\w+\.(?:py|sh)[^`#&|\n]*", README)})

# They need Kaggle, take long or do not end: their options alone are looked at.
NOT_RUN = ("benchmark", "download", "submit", "draw", "test", "kernel")


def words_of(command):
    """The script's name, without its ending, and its arguments."""
    _, script, *arguments = shlex.split(command)
    return script.removeprefix("scripts/").partition(".")[0], arguments


def test_readme_is_short():
    assert len(README.split()) <= 900
    assert {words_of(command)[0] for command in COMMANDS} >= {path.stem for path in SCRIPTS.glob("[a-z]*.py")} - {
        "split"
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_readme(command, light, call, tmp_path, monkeypatch):
    csvs, run = light
    name, arguments = words_of(command)
    if name in NOT_RUN and "--pack-only" not in arguments:
        if name != "test":
            text = call(name, "--help").out
            assert all(option in text for option in arguments if option.startswith("--")), command
        return
    monkeypatch.chdir(tmp_path)
    for folder in ("output/a", "output/b", "output/run"):
        shutil.copytree(run, folder)
    (tmp_path / "folder").mkdir()
    for label in range(10):
        (tmp_path / f"pictures/train/{label}").mkdir(parents=True)
    for picture in ("photo.jpg", "folder/one.png", *(f"pictures/train/{label}/one.png" for label in range(10))):
        write_picture(tmp_path / picture)
    given = {"DIR": "pictures", "HOST:PORT": "127.0.0.1:6379"}
    arguments = [given.get(word, word) for word in arguments]
    is_training = name in ("train", "run_all")
    paths = {"--input": csvs, "--output": tmp_path / ("new" if is_training else "output/run")}
    for option, path in paths.items():
        if option not in arguments and not (name == "kernel" and option == "--input"):
            arguments += [option, str(path)]
    if is_training and "--list" not in arguments:
        arguments.append("--check")  # options and data
    outcome = call("train" if is_training else name, *arguments)
    assert outcome.code == 0, outcome.error
