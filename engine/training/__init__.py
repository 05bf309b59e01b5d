"""What a training loop is made of: batches and their way to the device, compiled steps, means, watching."""
