"""Past one machine: detection and training on the workers of a Dask cluster; needs the extra ``vj[cluster]``.

`connect` reaches a cluster, or starts workers on this machine, and checks that they can do the work. `detect` searches
images from folders, lists, tar shards and URLs and leaves the rows in parts. `Engine` has a `vj.Training` mine
negatives and search features on the workers. Nothing else in the package imports this folder but the commands.

Examples
--------
>>> from vj.cluster import connect, detect  # doctest: +SKIP
>>> with connect("local:2") as client:  # doctest: +SKIP
...     detect(client, ["photos/", "s3://bucket/shard-*.tar"], vj.Detector(cascade), output="results")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "connection": ["connect"],
        "detection": ["Summary", "detect"],
        "engine": ["Engine"],
    },
)
