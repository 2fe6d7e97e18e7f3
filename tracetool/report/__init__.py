"""Reporters: an `Analysis` in, text out. They read no files and judge nothing; one module an output (`text`, `json`, `html`)."""
