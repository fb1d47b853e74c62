"""``python -m medimg3d``: the command ``medimg3d``."""

from medimg3d.cli.main import run

if __name__ == "__main__":
    run()
