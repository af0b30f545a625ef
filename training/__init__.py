"""What both packages share: errors, settings, devices, the loops' common parts, distributed training, and storage.

Knows nothing of faces or models.
"""
import os

# OpenMP threads busy-wait for one another. By default they spin so long that two trainings at once on the same cores
# may each take twenty times as long as alone; this lower spin count costs a single one nothing. Set before torch is
# imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
