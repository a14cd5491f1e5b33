"""The blob store: immutable bytes named by their SHA-256, on disk. Uploads resume, downloads are ranged.

Owns the files below one folder and a few threads of its own. Must not know HTTP, jobs or SQL: who holds a blob is
asked from the outside (`sweep`).

    blobs = await BlobStore.open(root, cap_bytes=…, reserve_bytes=…)
    await blobs.size(hash)                   # bytes, or None; touches the blob: its grace begins anew
    await blobs.offset(hash)                 # how far an upload got that can be resumed
    await blobs.receive(hash, total, offset, chunks)     # PUT: chunks is an async iterable of bytes
    async with blobs.upload(hash, total, offset) as upload: await upload.write(data); await upload.finish()
    async with await blobs.reader(hash) as reader:       # GET: reader.size, then
        async for chunk in reader.chunks(first, count): await response.write(chunk)      # chunks of 1 MiB
    await blobs.put_bytes(data); await blobs.get_bytes(hash, limit)
    await blobs.sweep(now_s, grace_s, store.pinned)      # what no job holds and nobody touched lately
    blobs.stat(); await blobs.close()

A blob is *stored* when its file, and the name in its folder, are fsynced: only then does `finish` return. A cut upload
is kept as a partial; it goes on at exactly the offset that `offset` tells. Two uploads of one blob at the same time are
safe: one that starts at 0 gets a file of its own, one that resumes takes over, and the one before it ends with
ConflictError. Memory per transfer is at most two chunks.

Layout: `stored/ab/<hash>` with 256 folders that are made on the first start, so that storing a blob costs two fsyncs
(a deeper tree would cost one more for every new folder), and `partial/<hash>`.
"""

from coordinator.server.blobs.reader import BlobReader
from coordinator.server.blobs.space import BlobStat
from coordinator.server.blobs.store import BlobStore, Swept
from coordinator.server.blobs.upload import Upload

__all__ = ["BlobReader", "BlobStat", "BlobStore", "Swept", "Upload"]
