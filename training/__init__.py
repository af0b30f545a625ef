"""What both packages share: errors, settings, devices, the loops' common parts, distributed training, and storage.

Knows nothing of faces or models.
"""
import os

# The threads of OpenMP wait awake for one another. By default they do so for so long that two trainings at once on the
# same cores may each take twenty times as long as alone; so few rounds cost nothing alone. Before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
