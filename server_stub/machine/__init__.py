"""Looking at this machine before a server is started: GPUs, installed engines, weights, ports, disks."""
