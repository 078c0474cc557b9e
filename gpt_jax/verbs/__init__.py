"""Verbs of the command line: one file each, arguments in, a library call, what is printed."""
