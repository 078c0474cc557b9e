"""Devices and processes: the mesh, the batches on it, and the processes of one run."""
