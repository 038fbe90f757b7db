"""The journal of a search, in a folder that the command has locked for itself.

Optuna's own lock answers an interrupt at a bad moment with another error, and one that a killed
search left behind would hold up the next search for half a minute.
"""

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class _Held(JournalFileSymlinkLock):
    """Does nothing: nobody else writes to the journal."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


def journal(folder: Path) -> JournalStorage:
    """Storage of the searches in a folder that the caller has locked."""
    path = str(folder / "journal.log")
    return JournalStorage(JournalFileBackend(path, lock_obj=_Held(path)))
