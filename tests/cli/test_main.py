from __future__ import annotations

import errno

import pytest
import typer

from medimg3d.cli import main


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "results/out"),
            1,
            "no permission for results/out",
        ),
        (
            FileExistsError(errno.EEXIST, "File exists", "results/out"),
            1,
            "results/out is a file, or lies in one; expected a folder.",
        ),
        (RuntimeError("something odd"), 1, "RuntimeError: something odd (unexpected; run again with --debug"),
        (typer.Abort(), 130, "What was finished is kept. Go on with --resume."),
        (KeyboardInterrupt(), 130, "What was finished is kept. Go on with --resume."),
    ],
)
def test_what_goes_wrong_is_one_line_with_an_exit_code(monkeypatch, capsys, error, code, words):
    def failing(**_):
        raise error

    monkeypatch.setattr(main, "app", failing)
    with pytest.raises(SystemExit) as stopped:
        main.run(["train", "bundle"])
    assert stopped.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_ctrl_c_is_told_however_typer_passes_it_on(monkeypatch, capsys):
    monkeypatch.setattr(main, "app", lambda **_: 130)
    with pytest.raises(SystemExit) as stopped:
        main.run(["predict", "bundle"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped. What was finished is kept.\n"


def test_debug_shows_the_traceback(monkeypatch):
    def failing(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(main, "app", failing)
    with pytest.raises(OSError, match="No space left"):
        main.run(["predict", "--debug"])
