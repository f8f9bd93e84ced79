"""Tables from files and from memory, as record batches that can be read again and again."""
