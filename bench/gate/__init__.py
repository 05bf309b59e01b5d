"""The gate: may this change land? A comparison as an exit code, and as texts for people and machines."""
