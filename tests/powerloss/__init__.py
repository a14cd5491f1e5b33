"""Power loss, honestly: every write below a folder is recorded, and a crash drops what was not synced."""
