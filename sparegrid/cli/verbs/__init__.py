"""One module per family of verbs: arguments in, calls of the client, drawings out."""
