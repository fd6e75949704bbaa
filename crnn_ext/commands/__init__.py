"""The commands of `crnn-ext`, a module each: `add_parser` adds its parser, `run` returns the exit status.

The status is 0; 1 if some of the inputs could not be used; 2 if nothing could be done.
"""
