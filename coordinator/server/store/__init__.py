"""The durable store of a grid: journal of facts, outcomes, finished jobs, pins on blobs, trust. One SQLite file.

Owns the file, its lock, one committer thread (the only writer) and a few read-only connections. Knows facts and
outcomes as values; must not know the scheduler's rules, sockets or asyncio.

    store = Store.open(path, on_held=…, on_resumed=…, on_fatal=…)   # locks, upgrades, counts the start (epoch)
    restored = store.load()                  # snapshot, then an iterator of the facts after it, in order
    future = store.commit(Batch(facts=[…], keeps=[…], now_ms=…))    # -> Future[int]: its seq, once it is durable
    store.save_snapshot(machine.snapshot(), seq)                    # seq: the last one whose facts it contains
    store.outcomes(job, stage, first, limit); store.spec(job); store.finished_jobs(); …   # any thread
    store.trust.token(hash); store.trust.add_token(…); store.trust.use_join_code(hash, wall_ms); store.trust.audit(…)
    store.pinned(hashes)                     # for BlobStore.sweep
    store.close()                            # commits what is queued, then closes

**Sequence.** Every batch, also one without facts, becomes exactly one row `facts(seq, version, crc, now_ms, bytes)`;
`bytes` is MessagePack of the *list* of its facts. One row a batch is several times faster than one a fact, and a
batch is the unit that commits anyway. `seq` therefore counts batches, without gaps, in the order of `commit` calls.

**Group commit.** The committer drains its queue into one transaction with one fdatasync; futures are resolved after
it, in order. `commit` encodes at once, in the caller's thread: a value changed later does not change the record.

**What follows by itself, in the same transaction.** `Submitted` adds the job's row, `Retire` its last view and state;
`Revived` takes those back; `Revoked` revokes the device's tokens. Blobs named by a submitted spec, appended items, kept
outcomes and checkpoints are pinned to their job; `Batch.pins` adds others. `forgotten` drops all of a job:
its row at once, its outcomes and pins in small steps afterwards.

**Disk full** holds: nothing is lost, the futures stay pending, `on_held(StorageError)` is called, and the committer
tries again every `retry_s` seconds (`retry_now()` at once); then `on_resumed()`. **Any other I/O error**, first of all
a failed fsync, is the end: the futures fail, `on_fatal(StorageError)` is called, and the process must exit, because
nobody knows any more what the disk holds. The callbacks come from the committer's thread.
"""

from coordinator.server.store.store import Store
from coordinator.server.store.trust import AuditRow, JoinCodeRow, TokenRow
from coordinator.server.store.values import Batch, FinishedJob, Kept, Pin, Restored

__all__ = ["AuditRow", "Batch", "FinishedJob", "JoinCodeRow", "Kept", "Pin", "Restored", "Store", "TokenRow"]
