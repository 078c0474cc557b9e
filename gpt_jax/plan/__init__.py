"""Cost of a config on absent hardware: by closed form, and by the real TPU compiler."""
