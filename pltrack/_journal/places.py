"""Where a journal can be, and what becomes of a file that is none any more."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# WAL needs memory that all processes share, and locks that hold: neither is there across machines.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|auristorfs|coda|ceph|gluster\w*|lustre|gpfs|pvfs2|orangefs|ocfs2|gfs2|beegfs\w*"
    r"|9p|davfs\d?|vboxsf|vmhgfs|prl_fs"
    r"|fuse\.(sshfs|rclone|s3fs|gcsfuse|goofys|davfs\d?|curlftpfs|smbnetfs|gluster\w*|ceph\S*|juicefs|mount-s3"
    r"|blobfuse2?|vmhgfs-fuse|lustre\w*|beegfs\w*|nfs\w*)"
)
_RUINED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}
_OF_THE_FILE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_PASSING_ERRNO = {"ENOSPC", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENOMEM", "EINTR", "EAGAIN"}
_MOUNT = re.compile(r"^\S+ \S+ \S+ \S+ (\S+) .*? - (\S+) ", re.MULTILINE)
_ESCAPED = re.compile(r"\\([0-7]{3})")

Identity = tuple[int, int] | None


def is_ruined(error: BaseException) -> bool:
    """Tell whether SQLite says that the file is no database, or a damaged one."""
    return _code(error) in _RUINED


def is_passing(error: BaseException) -> bool:
    """Tell whether the same may succeed later: a full disk, a lock, an error of the device."""
    return _code(error) in _PASSING or any(
        isinstance(each, OSError) and each.errno is not None and _name(each.errno) in _PASSING_ERRNO
        for each in _causes(error)
    )


def is_of_the_place(error: BaseException) -> bool:
    """Tell whether the file or the disk is at fault, and not what was to be written."""
    at_file = is_ruined(error) or is_passing(error) or _code(error) in _OF_THE_FILE
    return at_file or any(isinstance(each, OSError) for each in _causes(error))


def identity(path: Path) -> Identity:
    """Return which file is at `path`, None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other processes from setting files of this folder aside meanwhile."""
    try:
        import fcntl
    except ImportError:  # Windows: a file that another process has open cannot be moved anyway
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def set_aside(path: Path, broken: Identity) -> Path | None:
    """Move a broken journal out of the way, unless another process did; return its new name."""
    if broken is None or identity(path) != broken:
        return None
    aside = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
    # The file itself comes last: a fresh one must never meet the log of the old.
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    return aside


def network(path: Path, mountinfo: str) -> str:
    """Return the kind of network file system that holds an absolute path, by the text of /proc/self/mountinfo."""
    best, kind = -1, ""
    for found in _MOUNT.finditer(mountinfo):
        mount = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), found[1]))
        if path.is_relative_to(mount) and len(mount.parts) >= best:  # of two on one place, the later one counts
            best, kind = len(mount.parts), found[2]
    return kind if _NETWORK.fullmatch(kind) else ""


def network_of(path: Path) -> str:
    """Return the kind of network file system that holds a path; the empty string for a local one."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
        # As it is written first: following links would touch the file system, and a dead one never answers.
        as_written = Path(os.path.abspath(path))
        return network(as_written, mounts) or network(Path(os.path.realpath(path)), mounts)
    except (OSError, ValueError):
        return ""


def _code(error: BaseException) -> int:
    codes = [getattr(each, "sqlite_errorcode", 0) & 0xFF for each in _causes(error)]
    return next((code for code in codes if code), 0)


def _name(number: int) -> str:
    import errno

    return errno.errorcode.get(number, "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__
