"""What both packages share: errors, settings, devices, the loops' common parts, distributed training, and storage.

Knows nothing of faces or models.
"""
import os

# OpenMP threads busy-wait for one another. By default they spin so long that two trainings at once on the same cores
# may each take twenty times as long as alone; this lower spin count costs a single one nothing. It counts if torch is
# imported later: so every package imports this one first.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
