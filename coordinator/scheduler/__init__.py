"""The scheduler: a pure machine. Events in, effects out; it knows no clock, socket, disk, loop or chance."""
