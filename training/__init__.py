"""What both packages share: errors, settings, devices, the loops' common parts, distributed training, and storage.

Knows nothing of faces or models.
"""
