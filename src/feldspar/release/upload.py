"""Upload a release to a hub of models, by the library ``huggingface_hub``.

The branch ``main`` gets the whole release. Each released checkpoint gets a branch of its own with
its model as ``transformers`` loads it, named like ``step500-tokens1024000``. Token and endpoint are
the library's own (``hf auth login`` or HF_TOKEN; HF_ENDPOINT).
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feldspar.core.errors import SetupError, UserError, missing_extra
from feldspar.core.files import write_atomically
from feldspar.core.json_files import read_json
from feldspar.core.manifest import MANIFEST_NAME
from feldspar.core.progress import say
from feldspar.recipe.recorded import RELEASE_RECORD_NAME
from feldspar.release.card import CARD_NAME, checkpoint_card
from feldspar.release.unpack import unpack_release
from feldspar.release.verify import verify_files_of

EVERYTHING = ["*"]


def branch_of(checkpoint: dict[str, Any]) -> str:
    """Return the name of the branch of a released checkpoint."""
    return f"step{checkpoint['step']}-tokens{checkpoint['tokens']}"


def upload_release(release: Path, name: str, public: bool = False) -> str:
    """Upload a release into the repository ``name`` (OWNER/NAME); return its address.

    A repository that does not exist is made, private unless ``public``. One that exists keeps its
    visibility, and its branches become exactly what the release holds. Checkpoints come before the
    branch ``main``; a second call goes on where the first one failed. Raises UserError where a file
    of the release differs from its manifest, SetupError where the hub or the network refuses.
    """
    if problems := verify_files_of(release):
        raise UserError(
            f"{release} is not whole, so it is not uploaded: {problems[0]}",
            do="release the run again: feldspar release RUN --overwrite",
        )
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing_extra("huggingface_hub", "upload") from error
    api, record = HfApi(), read_json(release / RELEASE_RECORD_NAME)
    with _hub_errors(name):
        address = str(api.create_repo(name, private=not public, exist_ok=True))
        for checkpoint in record["checkpoints"]:
            branch = branch_of(checkpoint)
            say(f"uploading {branch}: a model of {_model_bytes(record) / 1e6:,.1f} MB")
            api.create_branch(name, branch=branch, exist_ok=True)
            with _model_at(release, record, checkpoint) as folder:
                api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    revision=branch,
                    delete_patterns=EVERYTHING,
                    commit_message=f"{record['identity']['name']} at step {checkpoint['step']}",
                )
        size = sum(each["bytes"] for each in record["files"].values())
        say(f"uploading main: the release of {size / 1e6:,.1f} MB")
        api.upload_folder(
            repo_id=name,
            folder_path=release,
            delete_patterns=EVERYTHING,
            commit_message=f"Release {record['identity']['name']}",
        )
    return address


def _model_bytes(record: dict[str, Any]) -> int:
    return sum(record["files"][name]["bytes"] for name in record["model"]["weights"]["files"])


@contextmanager
def _model_at(release: Path, record: dict[str, Any], checkpoint: dict[str, Any]) -> Generator[Path]:
    """Yield a folder with the model of a released checkpoint, as ``transformers`` loads it."""
    from feldspar.release.export_run import export_run

    with tempfile.TemporaryDirectory(prefix=".upload-", dir=release.parent) as work:
        run, folder = Path(work) / "run", Path(work) / "model"
        tokens = str(checkpoint["tokens"])
        unpack_release(release, run, tokens, needs_optimizer=False)
        export_run(run, folder, checkpoint=tokens)
        # It would list the card, which is written after it; the branch main has the manifest.
        (folder / MANIFEST_NAME).unlink()
        write_atomically(folder / CARD_NAME, checkpoint_card(record, checkpoint))
        yield folder


@contextmanager
def _hub_errors(name: str) -> Generator[None]:
    """Say what the hub or the network refused in our own words."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UserError(f"--upload {name} is no name of a repository", found=error) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        do = "give the same command again; what was uploaded stays"
        if status in (401, 403, 404):
            do = "log in with a token that may write there: hf auth login, or set HF_TOKEN"
        raise SetupError(
            f"the hub refused the upload to {name}: status {status}",
            found=error.server_message or error,
            do=do,
        ) from error
    # Every failure of the connection; the library of requests differs between versions.
    except HfHubHTTPError.__bases__ as error:
        raise SetupError(
            f"the hub cannot be reached to upload {name}",
            found=error,
            do="look at the network and at HF_ENDPOINT, then give the same command again",
        ) from error
