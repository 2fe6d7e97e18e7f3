"""Where something happened: in which kind of memory, and by which instruction."""
