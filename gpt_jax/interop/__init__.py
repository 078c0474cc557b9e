"""Other code bases' weights in and out."""
