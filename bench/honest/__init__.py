"""What keeps a measurement from fooling itself, or from being fooled by what it measures."""
