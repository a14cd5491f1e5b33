"""The edge of the coordinator: sockets, disks and clocks around the pure scheduler."""
