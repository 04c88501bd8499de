"""Train a configuration: the loop, the adversarial step and all that they need."""
