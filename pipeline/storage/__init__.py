"""Where a run keeps its files: stage files, published files, the manifest, the lock. Knows no stage and no model.

The commit protocol, from the smallest step to the largest:

    file       temporary name in the same folder → write → fsync → rename → fsync of the folder          atomic.py
    shard      old JSON removed → rejects → rows → JSON with the sha256 of the rows, each a file          stage_files.py
    response   in the journal before it is used                                                           models/journal.py
    data set   new Parquet files → card → manifest → files of the previous publication set aside          run/publish.py

What holds whenever the process or its machine stops:
- A file has its old bytes or its new ones. A shard is done when its JSON says so, and a data set exists when its manifest
  names its files. Everything else is ignored, and rebuilt or removed by the next run.
- The current manifest is true: no file that it names is ever overwritten with other bytes. A first publication uses plain
  names, train-00000-of-00004.parquet; a later one keeps the name of a file whose bytes are the same, and else adds
  8 digits of the sha256, train-00000-of-00004-1a2b3c4d.parquet. The manifest's `publication` counts the changes.
- Damage is reported when a file is read, and never published. Stage files are checked by their hashes and rebuilt by the
  next run, published files by the manifest's hashes; a damaged journal is set aside.
- A folder written by a newer version is refused, before any call.
- Whoever has opened a data set can read it to the end: files that the new manifest doesn't name move to .superseded/,
  where readers (dataset/reader.open_file) look for them. The publication after that deletes them.
- Resumed or not, the same configuration and responses give the same bytes in an empty folder.

In a store behind a URL (location.py, remote.py) the same holds by other means:

    file       written on this machine, then put in one piece: it appears whole or not at all
    lock       the object work/run.owner, put only where there is none                                    lock.py
    data set   the first manifest is put only where there is none, a later one only over the version that was there when
               the run began: of two runs that both believe they own the folder, the second to publish fails
    journal    stays on this machine's disk, with the ledger of batches and the progress

Not promised: that temporary files (.tmp-…) are gone before the next run; that a program which reads data/*.parquet instead
of the manifest sees only one publication while the next is being written; anything on disks that lie about fsync, on
network file systems without atomic renames, or, for the journal, without POSIX locks.
"""
