"""``python -m feldspar``: the command, also under torchrun."""

from feldspar.cli.main import run

if __name__ == "__main__":
    run()
