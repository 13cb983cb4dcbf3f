"""What running out of memory looks like."""

import torch

TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had no memory left; libraries say so as a plain RuntimeError too."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)
