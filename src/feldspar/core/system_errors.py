"""Translate errors of the system and of libraries into errors that a user can act on.

Writers of files use ``files.disk_errors``, which knows the path. The command line translates all
other such errors.
"""

import errno
import re
import shutil
import zlib
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

from feldspar.core.errors import FeldsparError, RunError, SetupError, UserError, shorten

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NETWORK = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EADDRINUSE,
    }
)
_NAME_LIMIT = 200
_TEXT_LIMIT = 200

Meaning = tuple[type[FeldsparError], str, str]
"""The class of the error, the fault of the file, and what to do."""

_PERMISSION: Meaning = (
    SetupError,
    "permission denied",
    "change its permissions, run the command as another user, or choose another place",
)
_OPEN_FILES: Meaning = (
    SetupError,
    "too many files are open",
    "raise the limit (ulimit -n), or use fewer workers",
)
_MEANINGS: dict[int, Meaning] = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: (SetupError, "the file system is read-only", "choose another place"),
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EIO: (
        SetupError,
        "the device failed to read or write",
        "look at the disk and the kernel's log, then give the same command again",
    ),
    errno.ESTALE: (SetupError, "the file server lost it", "give the same command again"),
    errno.ENOENT: (UserError, "it does not exist", "correct the path"),
    errno.ENOTDIR: (UserError, "a part of the path is a file, not a folder", "correct the path"),
    errno.EISDIR: (UserError, "it is a folder, and a file is needed", "correct the path"),
    errno.EEXIST: (UserError, "it exists already", "choose another place, or remove it"),
    errno.ENOTEMPTY: (
        UserError,
        "the folder is not empty",
        "see whether another process writes there, then give the same command again",
    ),
    errno.ENAMETOOLONG: (UserError, "the name is too long", "choose a shorter one"),
    errno.ELOOP: (UserError, "its symbolic links form a loop", "correct the links"),
}

_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")
_COPY_NUMBER = re.compile(r"\[Errno (\d+)\]")
_LINK_LOOP = re.compile(r"Symlink loop from (.*)")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|unable to mmap|STATUS_ALLOC_FAILED", re.IGNORECASE
)
_LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Timed out waiting|recvValue failed"
    r"|Socket (closed|Timeout)|[Rr]emote (peer|process)|failed to recv|NCCL"
)


def translated(error: BaseException) -> FeldsparError | None:
    """Return the error to show to a user in place of ``error``; None for an unknown one."""
    if isinstance(error, FeldsparError):
        return error
    told = write_error(error, None)
    if told is not None or isinstance(error, BrokenPipeError):
        return told
    text = shorten(str(error), _TEXT_LIMIT)
    if isinstance(error, OSError | EOFError | zlib.error | LZMAError | BadZipFile | TarError):
        return UserError(f"a file is damaged, or is not of the expected kind: {text}")
    return _of_library(error, text)


def write_error(error: BaseException, path: Path | None) -> FeldsparError | None:
    """Return the error of a refused write to ``path``; None where the system refused nothing.

    A file that the error itself names goes before ``path``, except on a full disk.
    """
    if isinstance(error, FeldsparError | BrokenPipeError):
        return None
    text = str(error)
    if isinstance(error, MemoryError) or _is_torch_memory(error, text):
        return _memory(text)
    number = _number(error, text)
    if number is None:
        return None
    return _of_number(number, _subject(error, number, path), text)


def _of_library(error: BaseException, text: str) -> FeldsparError | None:
    """Translate errors that are not the system's: a library's message on a file, a name, a
    process.
    """
    module = type(error).__module__
    if module.startswith(("safetensors", "_safetensors", "pyarrow")):
        return RunError(
            f"a file is damaged: {text}", do="restore the file from a copy, or make it again"
        )
    if isinstance(error, RuntimeError) and _is_distributed(module, text):
        return RunError(
            "the connection to another process of this run was lost",
            found=text or module,
            do="read the last messages of the other process, then give the same command again: the "
            "run continues from its newest checkpoint",
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return SetupError(
            "the system starts no more threads", do="raise the limit (ulimit -u), or use fewer"
        )
    if isinstance(error, RecursionError) and "JSON" in text:
        return UserError("a file holds JSON that is nested too deeply")
    if isinstance(error, UnicodeEncodeError):
        return UserError(
            "a name or a text holds bytes that are not UTF-8",
            found=ascii(error.object),
            do="rename the file, or correct the text",
        )
    if isinstance(error, ValueError) and "embedded null" in text:
        return UserError("a path holds the character NUL", do="correct the path")
    return None


def _number(error: BaseException, text: str) -> int | None:
    """Return the system's number of the error, also where a library has put it into a text."""
    if isinstance(error, shutil.Error):
        found = _COPY_NUMBER.search(text)
        return int(found[1]) if found else errno.EIO
    if isinstance(error, OSError):
        if error.errno is None and _SHORT_WRITE.search(text):  # NumPy
            return errno.ENOSPC
        if error.errno is None and isinstance(error, FileNotFoundError):  # safetensors
            return errno.ENOENT
        return error.errno
    if isinstance(error, RuntimeError) and _LINK_LOOP.match(text):  # pathlib before Python 3.13
        return errno.ELOOP
    found = _RUST_NUMBER.search(text)
    return int(found[1]) if found else None


def _subject(error: BaseException, number: int, path: Path | None) -> str | None:
    """Return the file that the error names, or else the caller's path."""
    name = getattr(error, "filename", None)
    if name is None and number == errno.ENOENT and not isinstance(error, shutil.Error):
        name = str(error).rpartition(": ")[2]  # safetensors
    if name is None and (found := _LINK_LOOP.match(str(error))):
        name = found[1].strip("'")
    if path is not None and (name is None or number in FULL_DISK):
        return str(path)
    if name is None or isinstance(name, int):
        return None
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _NAME_LIMIT else text[:_NAME_LIMIT] + "..."


def _of_number(number: int, subject: str | None, text: str) -> FeldsparError:
    if number in FULL_DISK:
        return SetupError(
            f"no space left on the disk while writing {subject or 'the output'}",
            do="free some space and give the same command again; nothing half-written was kept",
        )
    if number == errno.ENOMEM:
        return _memory(text)
    text = shorten(text, _TEXT_LIMIT)
    if number in _NETWORK:
        return SetupError(f"a connection failed: {text}", do="look at the network")
    known = _MEANINGS.get(number)
    if known is None:
        return SetupError(f"the system refused an operation: {text}", where=subject)
    kind, what, do = known
    if subject is None:
        return kind(f"{what}: {text}", do=do)
    return kind(f"{subject}: {what}", do=do)


def _memory(text: str) -> SetupError:
    return SetupError(
        "there is not enough memory",
        found=text or None,
        do="use a smaller model, micro-batch or number of workers, or a machine with more memory",
    )


def _is_torch_memory(error: BaseException, text: str) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(text) is not None


def _is_distributed(module: str, text: str) -> bool:
    own = module.startswith(("torch.distributed", "torch._C._distributed"))
    return own or ("gloo" in text.lower() and _LOST_PEER.search(text) is not None)
