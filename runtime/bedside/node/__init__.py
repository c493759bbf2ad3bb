"""A bedside node: images come in over the network, results go back, and nothing is lost between.

    config, network node.toml, read strictly; `rules` says which study goes where, and why; `jobs` opens the bundles
    gate            who may come in: addresses, AE titles, certificates, how much and how fast
    receiver        the Storage SCP, onto the disk, over `listening`; `syntaxes` is what it takes
    intake          takes in what is on the disk; `watcher` does so from folders; `traits` is what it looks at, and
                    `wholeness` whether all of an object is there
    spool           the node's folder: what arrives, what was made of it
    tables, queue   what became of each study, in SQLite; `entries` are its rows, `look` reads, `desk` is who writes
    completion      when a series has all its slices
    runner          runs one study after the other in a process of its own, which is `worker`
    outbox          sends results on: `store` by C-STORE over `association` and `pdus`, `stow` by STOW-RS
    parcels         what is sent; `failures`, why it was not
    certificates    TLS, with certificates on both sides
    housekeeping    forgets what is old
    chronicle       what happened, without saying to whom: to `logs`, `audit` and `metrics`, which `health` serves
    service         all of it together

But for `listening`, nothing here imports pynetdicom, urllib3 or prometheus_client before it is used: they are of the
extra ``node``. Not for clinical use.
"""
