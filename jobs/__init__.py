"""What must survive a crash: records, queue, storage; no torch, no pixels."""
