"""Where a run keeps what it made: stage files, published files, the manifest, one lock.

The commit protocol, from the smallest step to the largest:

    file       temporary name in the same folder → write → fsync → rename → fsync of the folder          atomic.py
    shard      old facts removed → rejects → rows → facts (JSON with the rows' sha256), each a file       stagefile.py
    answer     in the journal before it is used                                                           models/journal.py
    data set   new Parquet files → card → manifest → files of the publication before set aside            publish.py

Promised, whenever the process or its machine stops:
- A file has its old bytes or its new ones. A shard is done when its facts say so, a data set exists when its manifest names
  its files; whatever else lies there is ignored, and made again or removed by the next run.
- The manifest that stands is true of files that stand: no file that it names is written over with other bytes. The first
  publication has the plain names, train-00000-of-00004.parquet; a later one adds the first 8 digits of a changed file's
  sha256, train-00000-of-00004-1a2b3c4d.parquet, and keeps the name of a file whose bytes are the same. The manifest counts
  them: `publication` is 1, and one more whenever anything that it says changed.
- What is damaged is named when it is read, and never published: stage files by their hashes, and made again by the next run;
  published files by the manifest's (a run that has nothing to do looks at their sizes alone); the journal is set aside.
- A folder that a newer version wrote in is refused, before any call.
- Who has opened a data set can read it to the end: what the new manifest doesn't name moves to .superseded/, where readers
  (published.open_file) find it, and is deleted by the publication after that.
- Resumed or not, the same configuration and answers give the same bytes in an empty folder. The names of a republication
  depend on what stood there before.

In a store behind a URL (location.py, remote.py) the same holds, by other means:

    file       written on this machine → put in one piece: it appears whole or not at all
    lock       the object work/run.owner, put only where there is none                                    claim.py
    data set   the first manifest is put only where there is none, a later one only over the one that stood when the run
               began: of two runs that both think that the folder is theirs, the second to publish fails
    journal    stays on this machine's disk, with the ledger of batches and progress

A reader in the middle of an object that a publication sets aside goes on in .superseded/; the publication after that ends it.

Not promised: that temporary files (.tmp-…) are gone before the next run; that a program which reads data/*.parquet and not
the manifest sees one publication only, while the next one is being written; anything about disks that lie about fsync, and
network file systems without atomic renames, or for the journal without POSIX locks.
"""
