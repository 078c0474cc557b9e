"""What a config costs on a topology, without it: by closed form, and by the real TPU compiler."""
