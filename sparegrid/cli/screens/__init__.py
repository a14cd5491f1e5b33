"""Pure drawings: Structs of the REST interface in, rich renderables out. No client, no clock, no printing."""
